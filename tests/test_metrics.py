"""A metrics file that can no longer be written ends no campaign."""

import shutil
from pathlib import Path

import pytest
from campaigns import Heard, a_plan, fuzz

from qfuzz.campaign.run import Campaign
from qfuzz.cli.metrics import Metrics


def test_a_file_that_cannot_be_written_any_more_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = Metrics(tmp_path / "gone" / "qfuzz.prom")
    shutil.rmtree(tmp_path / "gone")

    def update(campaign: Campaign) -> None:
        metrics.final(campaign)

    assert fuzz(a_plan("reference", n=20), heard=Heard(update)).tally.examples == 20
    assert len(capsys.readouterr().err.splitlines()) == 1

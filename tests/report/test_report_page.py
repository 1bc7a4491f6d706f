"""The page as bytes: always the same, whole in itself, and honest about what is not there."""

import hashlib
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_records import HOSTILE, named, rich

from qfuzz.campaign.record import Moment, Record
from qfuzz.ir.errors import InvalidCase
from qfuzz.report.page import render

ROOT = Path(__file__).resolve().parents[2]
EMPTY = Record(document={"schema": 1}, described={}, by_op={}, steps={}, coverage={}, timeline=())


class Parsed(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, *names: str) -> list[str]:
        return [a[n] or "" for _, a in self.tags for n in names if n in a]


PAGES: dict[str, Any] = {"rich": rich, "hostile": lambda: named(HOSTILE), "empty": lambda: (EMPTY, {})}


@pytest.mark.parametrize("name", PAGES)
def test_every_address_is_in_the_page(name: str) -> None:
    page = render(*PAGES[name]())
    parsed = Parsed(page)
    addresses = parsed.values("href", "src", "xlink:href", "action", "poster", "srcset")
    assert all(a.startswith(("data:", "#")) for a in addresses)
    ids = parsed.values("id")
    assert len(ids) == len(set(ids)), "figures share no id"
    targets = [a[1:] for a in addresses if a.startswith("#")]
    targets += [c.removeprefix("url(#").removesuffix(")") for c in parsed.values("clip-path")]
    targets += parsed.values("aria-labelledby")
    assert set(targets) <= set(ids)
    assert not {t for t, _ in parsed.tags} & {"iframe", "object", "embed", "base", "form", "img", "image", "audio"}
    assert "url(" not in "".join(parsed.values("style"))
    assert "@import" not in page


def test_the_policy_allows_this_script_and_nothing_else() -> None:
    parsed = Parsed(render(*rich()))
    (policy,) = [a["content"] or "" for t, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert policy.count("unsafe-inline") == 1
    assert sum(t == "script" for t, _ in parsed.tags) == 1


def digest(name: str) -> str:
    return hashlib.sha256(render(*PAGES[name]()).encode()).hexdigest()


@pytest.mark.parametrize("name", PAGES)
def test_the_same_record_gives_the_same_bytes(name: str) -> None:
    script = f"from test_report_page import digest; print(digest({name!r}))"
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.strip() == digest(name) == digest(name)


def test_an_empty_campaign_says_so() -> None:
    text = Parsed(render(EMPTY, {})).text
    for said in (
        "Nothing was compared",
        "No backend ran any case",
        "No operator was judged",
        "No output element was compared",
        "No features were recorded",
        "left no timeline",
        "Nothing was recorded of the environment",
    ):
        assert said in text


def test_a_campaign_without_findings_says_so() -> None:
    record, _ = rich()
    clean = Record(
        document=record.document | {"findings": []},
        described=record.described,
        by_op=record.by_op,
        steps=record.steps,
        coverage=record.coverage,
        timeline=record.timeline[:1],
    )
    text = Parsed(render(clean, {})).text
    assert "No findings" in text
    assert "There are no findings" in text
    assert "No backend ran" not in text


def test_new_findings_come_first() -> None:
    text = Parsed(render(*rich())).text
    assert text.index("conv/violation/truncated") < text.index("linear/violation/saturation")
    assert "4 new findings, 1 known" in text


def test_a_missing_folder_is_said() -> None:
    record, folders = rich()
    assert Parsed(render(record, folders)).text.count("Its files are not there any more") == 1
    assert Parsed(render(record, {})).text.count("Its files are not there any more") == 5


def test_arithmetic_is_shown_as_it_is() -> None:
    page = render(*rich())
    assert "<h4><bdi>One element by hand</bdi></h4>" in page
    assert "real = Fraction(1, 2)" in Parsed(page).text
    assert "conv0: uint8[1, 2] = Conv()(x0, w0)\nclamp2: uint8[1, 2] = Clamp()(conv0)" in Parsed(page).text


def test_files_too_large_for_a_page_are_named() -> None:
    record, _ = rich()
    page = render(record, {"out/conv": {"case.json": b"{}", "model.onnx": os.urandom(2**20 + 1)}})
    assert "1.0 MiB, too large for this page" in Parsed(page).text
    assert len(page) < 2**20


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", "<b>"),
        ("findings", "none"),
        ("backends", [{"version": 1}]),
        ("seconds", None),
        ("findings", [{"op": 3}]),
    ],
)
def test_a_document_of_other_types_is_bad_input(field: str, value: Any) -> None:
    record, _ = rich()
    broken = Record(
        document=record.document | {field: value}, described={}, by_op={}, steps={}, coverage={}, timeline=()
    )
    with pytest.raises(InvalidCase, match="the campaign's document") as raised:
        render(broken, {})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("steps", [{}, {"b": {}}, {"b": {0: 0}}, {"b": {0: 1}}, {"b": {-(2**20): 1, 10**30: 2}}])
@pytest.mark.parametrize("n_moments", [0, 1, 2, 3000])
def test_odd_counts_are_drawn(steps: dict[str, dict[int, int]], n_moments: int) -> None:
    timeline = tuple(Moment(0.0 if n_moments == 2 else 10.0 * i, i, i, i, 0, 0) for i in range(n_moments))
    record = Record(
        document={},
        described={"b": {}},
        by_op={"b": {}, "c": {"conv": {}}},
        steps=steps,
        coverage={},
        timeline=timeline,
    )
    page = render(record, {})
    assert ("left no timeline" in page) == (n_moments == 0)
    assert len(page) < 300_000

"""``--json-lines``: what happens in a campaign as one JSON object a line, for machines."""

import sys
import time
from typing import Any

import msgspec

from qfuzz.campaign.protocol import FoundCase, Suspect
from qfuzz.campaign.run import Campaign

PROGRESS_EVERY = 1.0
"""Seconds between two `progress` events."""


class Events:
    """A listener that prints. Every line has ``event`` and ``seconds``, and is flushed."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._said = -PROGRESS_EVERY

    def say(self, event: str, **facts: Any) -> None:
        """One line."""
        seconds = round(time.monotonic() - self._started, 3)
        sys.stdout.write(msgspec.json.encode({"event": event, "seconds": seconds} | facts).decode() + "\n")
        sys.stdout.flush()

    def update(self, campaign: Campaign) -> None:
        """Counts, about once a second."""
        now = time.monotonic()
        if now - self._said < PROGRESS_EVERY:
            return
        self._said = now
        tally = campaign.tally
        self.say(
            "progress",
            examples=tally.examples,
            elements=tally.elements,
            features=len(tally.features),
            suspects=campaign.n_suspects,
            findings=len(campaign.findings),
            worker_deaths=tally.deaths,
            stage_seconds=tally.seconds,
            backends={name: b.verdicts | {"unsupported": b.unsupported} for name, b in tally.backends.items()},
        )

    def suspect(self, suspect: Suspect, *, new: bool) -> None:
        """An accusation."""
        s = suspect.symptom
        self.say(
            "accused",
            example=suspect.example,
            backend=suspect.spec,
            op=s.op,
            verdict=s.verdict,
            cause=s.cause or None,
            kind=s.kind or None,
            reason=suspect.verdict.reason,
            new=new,
        )

    def finding(self, found: FoundCase, path: str) -> None:
        """A finding is written."""
        s = found.signature.symptom
        self.say(
            "finding",
            signature=found.signature.text,
            backend=found.backend,
            backends=found.backends,
            op=s.op,
            verdict=s.verdict,
            cause=s.cause or None,
            known=bool(found.known),
            path=path,
            first_example=found.first_example,
            reduction=found.reduction,
        )

    def trouble(self, what: str) -> None:
        """Something went wrong."""
        self.say("trouble", what=what)

"""``--metrics FILE``: a campaign's counts as a Prometheus text file, for the node exporter's textfile collector."""

import sys
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from qfuzz.campaign.protocol import FoundCase, Suspect
from qfuzz.campaign.run import Campaign

WRITE_EVERY = 5.0
"""Seconds between two writings."""


class Metrics:
    """A listener that writes the file every few seconds, whole or not at all.

    Raises `OSError` at its beginning. Where the file cannot be written later, that is said once on stderr: a campaign
    does not end for want of it, and its timestamp tells that it is old.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = 0.0
        self._has_failed = False
        self._registry = CollectorRegistry()
        self._examples = self._gauge("examples", "Cases judged")
        self._elements = self._gauge("elements", "Output elements judged")
        self._features = self._gauge("features", "Distinct features of cases seen: coverage")
        self._findings = self._gauge("findings", "Findings", "known")
        self._deaths = self._gauge("worker_deaths", "Processes lost to kernels")
        self._errors = self._gauge("errors", "Errors inside qfuzz")
        self._seconds = self._gauge("campaign_seconds", "Seconds that the campaign has taken")
        self._stages = self._gauge("stage_seconds", "Seconds by stage, over all workers", "stage")
        self._verdicts = self._gauge("verdicts", "Elements and cases by verdict", "backend", "verdict")
        self._updated = self._gauge("updated_timestamp_seconds", "When this file was written")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write()

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"qfuzz_{name}", text, labels, registry=self._registry)

    def _write(self) -> None:
        self._updated.set(time.time())
        write_to_textfile(str(self._path), self._registry)

    def _write_if_possible(self) -> None:
        try:
            self._write()
        except OSError as e:
            if not self._has_failed:
                self._has_failed = True
                print(f"qfuzz: {self._path}: not written: {e.strerror or e}", file=sys.stderr, flush=True)

    def update(self, campaign: Campaign) -> None:
        """Counts, every few seconds."""
        now = time.monotonic()
        if now - self._written >= WRITE_EVERY:
            self._written = now
            self.final(campaign)

    def final(self, campaign: Campaign) -> None:
        """Counts, now."""
        tally = campaign.tally
        self._examples.set(tally.examples)
        self._elements.set(tally.elements)
        self._features.set(len(tally.features))
        self._deaths.set(tally.deaths)
        self._errors.set(campaign.errors)
        self._seconds.set(campaign.seconds)
        for known in (False, True):
            n = sum(bool(f.known) is known for f in campaign.findings.values())
            self._findings.labels(str(known).lower()).set(n)
        for stage, seconds in tally.seconds.items():
            self._stages.labels(stage).set(seconds)
        for name, backend in tally.backends.items():
            for verdict, n in (backend.verdicts | {"unsupported": backend.unsupported}).items():
                self._verdicts.labels(name, verdict).set(n)
        self._write_if_possible()

    def suspect(self, suspect: Suspect, *, new: bool) -> None:
        """Counted with the next update."""

    def finding(self, found: FoundCase, path: str) -> None:
        """Counted with the next update."""

    def trouble(self, what: str) -> None:
        """Counted with the next update."""

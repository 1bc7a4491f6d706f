"""What a run shows while it runs: a live table on a terminal, plain lines otherwise; and its summary."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from qfuzz.campaign.run import Plan, Suspect
from qfuzz.campaign.tally import Tally
from qfuzz.cli.piped_console import PipedConsole
from qfuzz.findings.finding import Finding

PLAIN_EVERY = 10.0
"""Seconds between progress lines where stdout is no terminal."""


class Progress:
    """A context manager around a campaign.

    Parameters
    ----------
    quiet
        No progress; findings and the summary only.
    silent
        Nothing at all (the JSON document is everything).
    """

    def __init__(self, plan: Plan, *, quiet: bool, silent: bool) -> None:
        self.plan, self.quiet, self.silent = plan, quiet, silent
        # Where nobody looks at a terminal, lines are as long as they are.
        self.console = PipedConsole(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
        self._started = self._said = time.monotonic()
        self._live: Live | None = None
        self._phase = "starting"
        self._tally: Tally | None = None
        self._n_suspects = 0

    def __enter__(self) -> "Progress":
        if not self.quiet and not self.silent:
            specs = ", ".join(r.spec for r in self.plan.rides)
            self.console.print(f"seed {self.plan.seed}; {specs}")
            if self.console.is_terminal:
                self._live = Live(console=self.console, refresh_per_second=4, transient=True, get_renderable=self._view)
                self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, tally: Tally, suspects: Sequence[Suspect]) -> None:
        """The campaign's counts so far."""
        self._phase, self._tally, self._n_suspects = "fuzzing", tally, len(suspects)
        now = time.monotonic()
        if self._live is None and not self.quiet and not self.silent and now - self._said >= PLAIN_EVERY:
            self._said = now
            print(self._line(), flush=True)

    def suspect(self, suspect: Suspect) -> None:
        """A symptom that was not seen before."""
        if self.silent or self.quiet:
            return
        s = suspect.symptom
        what = s.cause or s.kind
        self.console.print(
            f"suspect: {suspect.spec}: {s.op or 'network'} {s.verdict} ({what}), example {suspect.example}"
        )

    def reducing(self, n: int) -> None:
        """Fuzzing has ended; `n` suspects are looked at."""
        self._phase = "reducing"
        if self._live is None and not self.quiet and not self.silent:
            print(f"reducing {n} suspects", flush=True)

    def finding(self, finding: Finding, path: str) -> None:
        """A finding is written."""
        if self.silent:
            return
        colour = "yellow" if finding.known else "red"
        head = "known issue" if finding.known else "FINDING"
        self.console.print(Text(f"{head}: ", style=f"bold {colour}") + Text(finding.signature.text))
        shown = finding.verdict.mismatches[:1]
        detail = str(shown[0]) if shown else finding.verdict.reason
        self.console.print(f"    {finding.backend}: {detail}", markup=False)
        if len(finding.backends) > 1:
            self.console.print(f"    also {', '.join(finding.backends[1:])}", markup=False)
        nodes = len(finding.case.network.nodes)
        reduced = "" if finding.reduction == "done" else f", reduction: {finding.reduction}"
        self.console.print(
            f"    {_count(nodes, 'node')}, {_count(finding.n_elements, 'element')}{reduced}; {path}", markup=False
        )

    def _line(self) -> str:
        t = self._tally
        seconds = time.monotonic() - self._started
        if t is None:
            return f"{self._phase} … {seconds:.0f} s"
        rate = t.examples / max(seconds, 1e-9)
        return (
            f"{self._phase}: {t.examples} examples ({rate:.0f}/s), {t.elements} elements, "
            f"{_count(self._n_suspects, 'suspect')}, {seconds:.0f} s"
        )

    def _view(self) -> Group:
        rows = [Text(self._line(), style="bold")]
        if self._tally is None:
            return Group(*rows)
        return Group(*rows, backend_table(self._tally))

    def summary(self, document: dict[str, Any], *, verbose: bool) -> None:
        """How many cases ran, were unsupported, were rejected, by backend; and what was found."""
        if self._tally is not None and self._tally.examples:
            self.console.print(backend_table(self._tally))
        new = sum(not f["known"] for f in document["findings"])
        known = len(document["findings"]) - new
        self.console.print(
            f"{document['examples']} examples, {document['elements']} elements in {document['seconds']:.1f} s; "
            f"seed {document['seed']}; {_count(new, 'new finding')}, {_count(known, 'known issue')}"
        )
        if document["stopped"]:
            self.console.print(f"stopped: {document['stopped']}")
        if verbose:
            stages = ", ".join(f"{k} {v:.1f} s" for k, v in document["stage_seconds"].items())
            self.console.print(f"stages: {stages}")
            r = document["reference"]
            share = r["refined"] / max(r["decided"], 1)
            self.console.print(f"reference: {r['decided']} elements decided, {share:.2%} of them in exact arithmetic")
            if self._tally is not None:
                for name, b in self._tally.backends.items():
                    for reason, n in b.reasons.most_common(5):
                        self.console.print(f"    {name} unsupported {n}: {reason}", markup=False)
        sys.stdout.flush()


def backend_table(tally: Tally) -> Table:
    """Verdicts by backend: cases ran, unsupported, rejected, crashed; elements exact, admissible, violating."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("backend", no_wrap=True)
    for column in ("ran", "unsup.", "rej.", "crash", "exact", "adm.", "viol."):
        table.add_column(column, justify="right", no_wrap=True)
    for name, b in tally.backends.items():
        v = b.verdicts
        crashed = v["crash"] + v["hang"] + v["unstable"] + v["corrupted"]
        cells = [b.examples, b.unsupported, v["rejected"], crashed, v["exact"], v["admissible"], v["violation"]]
        styles = ["", "", "red", "red", "", "", "red"]
        table.add_row(name, *(Text(_short(n), style=s if n and s else "") for n, s in zip(cells, styles, strict=True)))
    return table


def _short(n: int) -> str:
    """Six columns at most: 1234, 56.7k, 8.9M."""
    if n < 10_000:
        return str(n)
    for unit, size in (("k", 10**3), ("M", 10**6), ("G", 10**9)):
        if n < 1000 * size:
            return f"{n / size:.3g}{unit}"
    return f"{n:.0e}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")

"""What a campaign shows while it runs: a live view on a terminal, plain lines otherwise; and its summary."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from qfuzz.campaign.protocol import FoundCase, Suspect
from qfuzz.campaign.run import Campaign
from qfuzz.campaign.tally import Tally
from qfuzz.cli.piped_console import PipedConsole
from qfuzz.oracle.compare import ARROW

PLAIN_EVERY = 10.0
"""Seconds between progress lines where stdout is no terminal."""
VIEW_EVERY = 0.25
"""Seconds between two looks at the counts for the live view."""
FINDINGS_SHOWN = 5
"""The last findings stay in the live view."""


class Progress:
    """A listener, and a context manager around a campaign.

    Parameters
    ----------
    quiet
        No progress; findings and the summary only.
    silent
        Nothing at all (what is printed elsewhere is everything).
    """

    def __init__(self, *, quiet: bool, silent: bool) -> None:
        self.quiet, self.silent = quiet, silent
        # Where nobody looks at a terminal, lines are as long as they are.
        self.console = PipedConsole(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
        self._started = self._said = time.monotonic()
        self._live: Live | None = None
        self._view: Group | Text = Text("starting workers …", style="bold")

    def __enter__(self) -> "Progress":
        if not self.quiet and not self.silent and self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True, get_renderable=self._shown)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def _shown(self) -> Group | Text:
        return self._view

    def beginning(self, seed: int, specs: Sequence[str], before: int) -> None:
        """The campaign begins; `before` examples were judged before it was resumed."""
        if not self.quiet and not self.silent:
            resumed = f"; resumed after {before} examples" if before else ""
            self.console.print(f"seed {seed}; {', '.join(specs)}{resumed}", markup=False)

    def update(self, campaign: Campaign) -> None:
        """The campaign's counts so far."""
        if self.quiet or self.silent:
            return
        now = time.monotonic()
        if now - self._said >= (PLAIN_EVERY if self._live is None else VIEW_EVERY):
            self._said = now
            tally = campaign.tally
            if self._live is None:
                print(_line(campaign, tally), flush=True)
            else:
                self._view = _view(campaign, tally)

    def suspect(self, suspect: Suspect, *, new: bool) -> None:
        """A symptom that was not seen before is said."""
        if self.silent or self.quiet or not new:
            return
        s = suspect.symptom
        what = s.cause or s.kind
        self.console.print(
            f"suspect: {suspect.spec}: {s.op or 'network'} {s.verdict} ({what}), example {suspect.example}",
            markup=False,
        )

    def finding(self, found: FoundCase, path: str) -> None:
        """A finding is written."""
        if self.silent:
            return
        finding = found.finding()
        self.console.print(_headline(found))
        shown = finding.verdict.mismatches[:1]
        detail = str(shown[0]) if shown and ARROW not in finding.backend else finding.verdict.reason
        self.console.print(f"    {finding.backend}: {detail}", markup=False)
        if len(finding.backends) > 1:
            self.console.print(f"    also {', '.join(finding.backends[1:])}", markup=False)
        nodes = len(finding.case.network.nodes)
        reduced = "" if finding.reduction == "done" else f", reduction: {finding.reduction}"
        self.console.print(
            f"    {_count(nodes, 'node')}, {_count(finding.n_elements, 'element')}{reduced}; {path}", markup=False
        )

    def trouble(self, what: str) -> None:
        """Something went wrong that is no finding: on stderr, whoever reads stdout."""
        print(f"qfuzz: {what}", file=sys.stderr, flush=True)

    def summary(self, tally: Tally, document: dict[str, Any], *, verbose: bool) -> None:
        """How many cases ran, were unsupported, were rejected, by backend; and what was found."""
        if tally.examples:
            self.console.print(backend_table(tally))
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
            deaths = _count(document["worker_deaths"], "worker death")
            self.console.print(f"coverage: {_count(document['features'], 'feature')}; {deaths}")
            for name, b in tally.backends.items():
                for reason, n in sorted(b.reasons.items(), key=lambda item: -item[1])[:5]:
                    self.console.print(f"    {name} unsupported {n}: {reason}", markup=False)
        sys.stdout.flush()


def _line(campaign: Campaign, tally: Tally) -> str:
    """The counts in one line."""
    seconds = campaign.seconds
    return (
        f"{tally.examples} examples ({tally.examples / max(seconds, 1e-9):.0f}/s), {tally.elements} elements, "
        f"{_count(len(tally.features), 'feature')}, {_count(campaign.n_suspects, 'suspect')}, "
        f"{_count(len(campaign.findings), 'finding')}, {_count(tally.deaths, 'worker death')}, {seconds:.0f} s"
    )


def _view(campaign: Campaign, tally: Tally) -> Group:
    total = sum(tally.seconds.values()) or 1.0
    shares = "  ".join(f"{name} {spent / total:.0%}" for name, spent in tally.seconds.items())
    rows: list[Text | Table] = [Text(_line(campaign, tally), style="bold"), Text(f"time: {shares}", style="dim")]
    rows.append(backend_table(tally))
    rows += [_headline(f) for f in list(campaign.findings.values())[-FINDINGS_SHOWN:]]
    return Group(*rows)


def _headline(found: FoundCase) -> Text:
    colour, head = ("yellow", "known issue") if found.known else ("red", "FINDING")
    return Text(f"{head}: ", style=f"bold {colour}") + Text(found.signature.text)


def backend_table(tally: Tally) -> Table:
    """Verdicts by backend: cases ran, unsupported, rejected, accepted though invalid, crashed; elements."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("backend", no_wrap=True)
    for column in ("ran", "unsup.", "rej.", "inv.", "crash", "exact", "adm.", "viol."):
        table.add_column(column, justify="right", no_wrap=True)
    for name, b in tally.backends.items():
        v = b.verdicts
        if ARROW in name:
            table.add_row(name, *(Text(_short(n)) for n in (b.examples, b.unsupported)), "", f"{v['changed']} changed")
            continue
        crashed = v["crash"] + v["hang"] + v["unstable"] + v["corrupted"]
        accused = [v.get(name, 0) for name in ("rejected", "accepted-invalid")]
        cells = [b.examples, b.unsupported, *accused, crashed, v["exact"], v["admissible"], v["violation"]]
        styles = ["", "", "red", "red", "red", "", "", "red"]
        table.add_row(
            Text(name), *(Text(_short(n), style=s if n and s else "") for n, s in zip(cells, styles, strict=True))
        )
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

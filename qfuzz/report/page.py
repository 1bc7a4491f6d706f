"""The page: one file that holds its figures, its style, its script and the files of its findings, and fetches nothing.

Every text of the record is escaped by the template; what does not print is made visible first (`shown`). The page's
policy forbids everything that is not in it, all scripts but its own included.
"""

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources

import jinja2
from markupsafe import Markup

from qfuzz.campaign.record import Record
from qfuzz.report.cards import cards
from qfuzz.report.coverage import feature_rows
from qfuzz.report.curves import curves, thinned
from qfuzz.report.document import Document, read_document
from qfuzz.report.environment import described_facts
from qfuzz.report.error_bars import error_bars, step_bins
from qfuzz.report.grid import SEVERITY, verdict_grid
from qfuzz.report.heat_map import heat_map
from qfuzz.report.shown import duration, one_line, short_count, shown

_TABLE_MOMENTS = 12


def render(record: Record, folders: Mapping[str, Mapping[str, bytes]]) -> str:
    """The campaign as an HTML page. The same record and files give the same page.

    Parameters
    ----------
    folders
        By a finding's path, as in the record's document: its files, contents by relative name. May lack any.

    Raises
    ------
    InvalidCase
        Where the record's document has a field of another type than ``run --json`` promises.
    """
    document = read_document(record.document)
    grid = verdict_grid(record.by_op, [b.name for b in document.backends])
    script = _text("page.js")
    seen = {s for by_step in record.steps.values() for s in by_step}
    return _page(
        style=Markup(_text("page.css")),
        script=Markup(script),
        policy=_policy(script),
        document=document,
        headline=headline(document),
        cards=cards(document.findings, folders),
        grid=grid,
        verdicts=SEVERITY,
        heat_map=heat_map(grid) if grid.ops else None,
        steps=record.steps,
        step_bins=step_bins(seen) if seen else (),
        error_bars=error_bars(record.steps),
        features=feature_rows(record.coverage),
        curves=curves(record.timeline),
        moments=thinned(record.timeline, _TABLE_MOMENTS),
        deaths=record.timeline[-1].deaths if record.timeline else 0,
        facts=described_facts(document.environment, record.described),
    )


def headline(document: Document) -> str:
    """What the campaign came to, in a few words."""
    known = len(document.findings) - document.new
    if document.findings:
        found = f"{document.new} new finding{'' if document.new == 1 else 's'}" if document.new else "Nothing new"
        return f"{found}, {known} known" if known else found
    return "No findings" if document.compared else "Nothing was compared"


def _page(**values: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("qfuzz", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters |= {"short": short_count, "duration": duration, "count": _grouped, "label": one_line}
    return environment.get_template("page.html.j2").render(values)


def _visible(value: object) -> object:
    return value if not isinstance(value, str) or isinstance(value, Markup) else shown(value)


def _grouped(n: int) -> str:
    return f"{n:,}"


def _text(name: str) -> str:
    return resources.files("qfuzz.report").joinpath(name).read_text("utf-8")


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )

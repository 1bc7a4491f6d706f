"""The parts of the page that compute: verdict grid, report text, file names, axes."""

import base64
import io
import itertools
import zipfile

from hypothesis import given
from hypothesis import strategies as st

from qfuzz.campaign.record import Moment
from qfuzz.report.coverage import feature_rows
from qfuzz.report.curves import thinned
from qfuzz.report.downloads import archive, safe_name
from qfuzz.report.environment import described_facts
from qfuzz.report.error_bars import labelled_bins, step_bins
from qfuzz.report.grid import SEVERITY, verdict_grid
from qfuzz.report.prose import Span, blocks, spans
from qfuzz.report.shown import duration, file_size, one_line, short_count, shown

TEXT = st.text(st.characters(codec=None), max_size=40)


@given(TEXT)
def test_shown_text_prints_and_can_be_encoded(text: str) -> None:
    seen = shown(text)
    assert seen.replace("\n", "").replace("\t", "").isprintable()
    seen.encode("utf-8")
    assert shown(seen) == seen
    assert (seen == text) == all(c.isprintable() or c in "\n\t" for c in text)


@given(TEXT, st.integers(2, 50))
def test_one_line_fits(text: str, width: int) -> None:
    line = one_line(text, width)
    assert len(line) <= width
    assert line.isprintable()


def test_numbers_read_well() -> None:
    assert [short_count(n) for n in (0, 950, 999, 1000, 1240, 9949, 34_000, 5_600_000)] == [
        *("0", "950", "999", "1k", "1.2k", "9.9k", "34k", "5.6M")
    ]
    assert [duration(s) for s in (0, 0.0388, 0.2, 4.21, 59.99, 61, 3601, 30_000)] == [
        *("0 s", "39 ms", "200 ms", "4.21 s", "60 s", "1 min 1 s", "1 h 0 min", "8 h 20 min")
    ]
    assert [file_size(n) for n in (0, 1023, 1024, 2**20)] == ["0 B", "1023 B", "1.0 KiB", "1.0 MiB"]


UNMARKED = TEXT.map(lambda t: "".join(c for c in t if c not in "`*#-"))


@given(st.lists(UNMARKED), st.lists(UNMARKED))
def test_nothing_of_a_report_is_lost(before: list[str], inside: list[str]) -> None:
    """All that is no mark of Markdown is shown, in order."""
    report = "\n".join(["# title", *before, "```python", *inside, "```", *before])
    said = "".join(b.text + "".join(span.text for line in b.lines for span in line) for b in blocks(report))
    assert "".join(said.split()) == "".join("".join([*before, *inside, *before]).split())


def test_spans() -> None:
    assert spans("`y[0]` is **1**, a ** b ` c") == (
        Span("code", "y[0]"),
        Span("plain", " is "),
        Span("strong", "1"),
        Span("plain", ", a ** b ` c"),
    )
    assert spans("") == ()


def test_blocks() -> None:
    found = blocks("# title\n\ntext\n## Head\n    a\n    b\n- x\n- y\n```python\n# not a title\n```\n```\nopen")
    assert [b.kind for b in found] == ["paragraph", "heading", "code", "list", "code"]
    assert found[2].text == "a\nb"
    assert len(found[3].lines) == 2
    assert found[4].text == "# not a title\nopen"


@given(TEXT)
def test_names_are_safe_everywhere(name: str) -> None:
    safe = safe_name(name)
    assert 0 < len(safe) <= 100
    assert set(safe) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert safe[0] not in "._-"


@given(TEXT, st.dictionaries(TEXT, st.binary(max_size=20), max_size=5))
def test_archives_stay_in_their_folder(name: str, files: dict[str, bytes]) -> None:
    made = archive(name, files)
    assert made == archive(name, files)
    data = base64.b64decode(made.address.partition(",")[2])
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        assert sorted(z.read(n) for n in z.namelist()) == sorted(files.values())
        assert len(set(z.namelist())) == len(files)
        for entry in z.namelist():
            folder, *parts = entry.split("/")
            assert folder == safe_name(name)
            assert all(p not in ("", ".", "..") for p in parts)


def test_the_worst_verdict_of_each_pair() -> None:
    grid = verdict_grid(
        {
            "b": {
                "conv": {"exact": 9, "admissible": 1, "violation": 0, "cases": 3},
                "add": {"crash": 1, "violation": 5},
            },
            "a": {"conv": {"unsupported": 4, "cases": 0, "new word": 2}},
        },
        ["a", "b", "never ran"],
    )
    assert grid.ops == ("add", "conv")
    assert grid.backends == ("a", "b")
    assert [[c.worst for c in row] for row in grid.rows] == [["", "crash"], ["unsupported", "admissible"]]
    assert grid.rows[1][0].counts == (("unsupported", 4), ("new word", 2))
    assert grid.rows[0][1].worst_count == 1
    assert grid.verdicts == ("crash", "admissible", "unsupported")


@given(st.dictionaries(st.sampled_from(SEVERITY), st.integers(0, 5)))
def test_no_pair_is_accused_without_a_count(counts: dict[str, int]) -> None:
    ((cell,),) = verdict_grid({"b": {"conv": counts}}, []).rows
    assert (cell.worst_count > 0) == bool(cell.worst)
    assert not any(counts.get(v) for v in SEVERITY[: SEVERITY.index(cell.worst)]) if cell.worst else True


@given(st.sets(st.integers(-8, 8) | st.sampled_from([s * 2**k for k in range(4, 31) for s in (-1, 1)]), min_size=1))
def test_the_axis_holds_every_step_and_its_labels_stay_apart(seen: set[int]) -> None:
    bins = step_bins(seen)
    assert {*seen, -1, 0, 1} <= set(bins)
    assert bins == tuple(sorted(bins))
    labels = labelled_bins(bins, 10.0)
    places = [bins.index(s) for s in labels]
    assert 0 in labels
    assert all(b - a >= 3 for a, b in itertools.pairwise(places))


def test_features_by_operator() -> None:
    rows = feature_rows({"conv > add": 2, "conv": 10, "add": 3, "conv: per-channel": 1, "conv: int8->int8": 5})
    assert [(r.op, r.kind, r.feature, r.examples) for r in rows] == [
        ("add", "operator", "add", 3),
        ("conv", "operator", "conv", 10),
        ("conv", "form", "int8->int8", 5),
        ("conv", "form", "per-channel", 1),
        ("conv", "neighbours", "conv > add", 2),
    ]
    assert rows[1].share == 1
    assert feature_rows({}) == ()


def test_facts_that_differ_stay_with_their_backends() -> None:
    alike = {"cpu": "A", "threads": "1", "ftz": "on"}
    facts = described_facts({"cpu": "A", "ftz": "off"}, {"x": alike | {"name": "x", "version": "1"}, "y": alike})
    assert facts.shared == (("cpu", "A"), ("ftz", "off"), ("threads", "1"))
    assert facts.columns == ("ftz", "version")
    assert facts.rows == (("x", ("on", "1")), ("y", ("on", "")))


def test_a_long_timeline_keeps_its_ends() -> None:
    timeline = tuple(Moment(float(i), i, i, i, i, i) for i in range(9001))
    few = thinned(timeline, 500)
    assert len(few) == 500
    assert few[0] == timeline[0]
    assert few[-1] == timeline[-1]
    assert list(few) == sorted(few, key=lambda m: m.seconds)
    assert thinned(timeline[:500], 500) == timeline[:500]
    assert thinned((), 5) == ()

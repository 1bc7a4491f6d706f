"""The regression corpus: a folder of case files, each saying what it expects of which backend; and its replay."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import msgspec

from qfuzz.findings.conditions import names_backend, why_not
from qfuzz.findings.signature import Signature
from qfuzz.ir.codec import MAX_BYTES, CaseFile
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.expectation import Expectation
from qfuzz.ir.network import Case
from qfuzz.ops import CODEC
from qfuzz.oracle.verdicts import BackendVerdict, Outcome

UNSTABLE_TRIES = 8
"""How often a case whose results change from run to run is replayed, at the most."""

Status = Literal["holds", "regressed", "fixed", "skipped"]


class Replayed(msgspec.Struct, frozen=True):
    """What one entry came to on one backend.

    `holds`: as expected (a known issue is still there). `regressed`: it was expected to hold and does not, or shows
    another verdict than the known one. `fixed`: a known issue is gone. `skipped`: it cannot run here, and why.
    """

    path: str
    backend: str
    status: Status
    why: str


def read_case(path: Path) -> CaseFile:
    """The case file at `path`, or the one in a finding's folder.

    Raises
    ------
    InvalidCase
        In one line, with the path.
    """
    if path.is_dir():
        path = path / "case.json"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InvalidCase(f"{path}: {path.stat().st_size} bytes; a case file has at most {MAX_BYTES}")
        data = path.read_bytes()
    except OSError as e:
        raise InvalidCase(f"{path}: cannot be read: {e.strerror or e}") from None
    try:
        return CODEC.decode(data)
    except InvalidCase as e:
        raise InvalidCase(f"{path}: {e}") from None


def corpus_files(paths: Sequence[Path]) -> Iterator[Path]:
    """Case files under `paths`: files as named, finding folders, and folders of either, in sorted order."""
    for path in paths:
        if not path.is_dir():
            yield path
        elif (path / "case.json").is_file():
            yield path / "case.json"
        else:
            found = sorted(p for p in path.rglob("*.json") if p.name != "schema.json" and is_case_file(p))
            yield from found


def is_case_file(path: Path) -> bool:
    """Whether the file begins as a case file does."""
    try:
        with path.open("rb") as f:
            return b'"qfuzz-case"' in f.read(200)
    except OSError:
        return False


def replay_entry(
    path: str,
    file: CaseFile,
    described: Mapping[str, Mapping[str, str]],
    judge: Callable[[Case, str], BackendVerdict],
) -> list[Replayed]:
    """Replay one entry on every backend.

    Parameters
    ----------
    described
        Backend spec to what it says of itself, in order.
    judge
        Runs a case on one backend; crashes come back as verdicts.

    Of several expectations that apply to a backend any may be met: results that change from run to run have several
    verdicts. Where none is, the first decides.
    """
    expectations = file.expect or (Expectation(backend="*", verdict="holds"),)
    results = []
    for spec, facts in described.items():
        mine = [e for e in expectations if names_backend(e, spec)]
        if not mine:
            continue
        applying = [(e, why_not(e.when, facts)) for e in mine]
        live = [e for e, why in applying if not why]
        if not live:
            results.append(Replayed(path, spec, "skipped", applying[0][1]))
            continue
        tries = UNSTABLE_TRIES if any(e.verdict == "unstable" for e in live) else 1
        results.append(_replay(path, spec, file.case, live, judge, tries))
    return results


def _replay(
    path: str,
    spec: str,
    case: Case,
    expectations: Sequence[Expectation],
    judge: Callable[[Case, str], BackendVerdict],
    tries: int,
) -> Replayed:
    """The best of what the expectations make of the verdict; a known issue is gone once no try shows it."""
    for _ in range(tries):
        verdict = judge(case, spec)
        compared = [_compare(e, verdict) for e in expectations]
        status, why = next((c for c in compared if c[0] == "holds"), compared[0])
        if status != "fixed":
            break
    else:
        why += f" (not seen in {tries} runs)" if tries > 1 else ""
    return Replayed(path, spec, status, why)


def _compare(expected: Expectation, verdict: BackendVerdict) -> tuple[Status, str]:
    if verdict.outcome is Outcome.UNSUPPORTED:
        return "skipped", f"unsupported: {verdict.reason}"
    got = verdict.verdict
    detail = str(verdict.mismatches[0]) if verdict.mismatches else verdict.reason
    if expected.verdict == "holds":
        return ("regressed", f"{got}: {detail}") if verdict.is_finding else ("holds", got)
    if got == expected.verdict:
        return "holds", f"known issue, {expected.link or 'not reported'}"
    if not verdict.is_finding:
        return "fixed", f"the known {expected.verdict} is gone; {expected.link or 'not reported'}"
    return "regressed", f"{got} instead of the known {expected.verdict}: {detail}"


class KnownIssue(msgspec.Struct, frozen=True):
    """A triaged signature."""

    path: str
    expectation: Expectation


def known_issues(paths: Sequence[Path]) -> tuple[KnownIssue, ...]:
    """The known issues that the corpus files under `paths` list."""
    issues = []
    for path in corpus_files(paths):
        try:
            file = read_case(path)
        except InvalidCase:
            if path.exists():
                raise
            continue  # somebody took it away meanwhile
        for e in file.expect:
            if e.verdict != "holds":
                issues.append(KnownIssue(str(path), e))
    return tuple(issues)


def known_as(
    issues: Sequence[KnownIssue], signature: Signature, spec: str, described: Mapping[str, str]
) -> KnownIssue | None:
    """The known issue that this signature on this backend is, if any.

    A known signature may hold ``*`` before its last slash. Its form is a lower bound: an issue known for some form
    covers cases that have more of it, unreduced ones among them.
    """
    for issue in issues:
        e = issue.expectation
        if not e.signature or not names_backend(e, spec) or why_not(e.when, described):
            continue
        head, _, form = e.signature.rpartition("/")
        own_head, _, own_form = signature.text.rpartition("/")
        wanted = set(form.split(",")) - {"-", "*"}
        if fnmatchcase(own_head, head.replace("[", "[[]")) and wanted <= set(own_form.split(",")):
            return issue
    return None

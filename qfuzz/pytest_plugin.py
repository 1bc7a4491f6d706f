"""The pytest plugin: corpus files as test items, findings of fuzz tests written as files, known issues counted.

Importing it loads neither torch, numpy nor hypothesis; everything below is imported when it is first needed.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from qfuzz.campaign.client import WorkerClient
    from qfuzz.findings.corpus import KnownIssue, Replayed
    from qfuzz.ir.codec import CaseFile
    from qfuzz.ir.network import Case
    from qfuzz.oracle.verdicts import BackendVerdict, Mismatched

_KNOWN = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("qfuzz", "quantized kernels against exact arithmetic")
    group.addoption(
        "--qfuzz-backend",
        action="append",
        default=[],
        metavar="SPEC",
        help="Backend that corpus files are replayed on. Repeatable. Default: all that are installed.",
    )
    group.addoption(
        "--qfuzz-out", default="qfuzz-out", metavar="DIR", help="Where findings are written. Default: qfuzz-out."
    )
    group.addoption("--qfuzz-no-reduce", action="store_true", help="Write findings as Hypothesis left them.")
    parser.addini("qfuzz_corpus", "Folders whose case files list known issues. Default: corpus.", type="paths")


@pytest.hookimpl(tryfirst=True)  # before Hypothesis's own plugin loads the profile that is asked for
def pytest_configure(config: pytest.Config) -> None:
    config.stash[_KNOWN] = []
    config.addinivalue_line("markers", "qfuzz_corpus: a replayed corpus file")
    folders = [Path(p) for p in config.getini("qfuzz_corpus")] or [config.rootpath / "corpus"]
    os.environ.setdefault("QFUZZ_CORPUS", os.pathsep.join(str(p) for p in folders if p.is_dir()))
    _add_nightly_profile(str(config.getoption("--hypothesis-profile", "") or ""))


def _add_nightly_profile(wanted: str) -> None:
    """`nightly`, where a project that uses Hypothesis has none: many examples, no deadline."""
    import sys

    if not wanted and "hypothesis" not in sys.modules:
        return  # nobody here uses Hypothesis yet
    from hypothesis import settings

    if "nightly" not in settings._profiles:
        settings.register_profile("nightly", max_examples=5_000, deadline=None, print_blob=True)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "CorpusFile | None":
    if file_path.suffix != ".json" or not _looks_like_a_case(file_path):
        return None
    out = parent.config.rootpath / str(parent.config.getoption("--qfuzz-out"))
    if out in file_path.parents and not _is_asked_for(file_path, out, parent.config):
        return None  # what a run has found is no corpus until someone puts it there
    return CorpusFile.from_parent(parent, path=file_path)


def _is_asked_for(path: Path, out: Path, config: pytest.Config) -> bool:
    """Whether an argument names the file, or a folder of findings that holds it."""
    arguments = [Path(a.partition("::")[0]).resolve() for a in config.args]
    return any(a == path or (a in path.parents and (a == out or out in a.parents)) for a in arguments)


def _looks_like_a_case(path: Path) -> bool:
    try:
        with path.open("rb") as f:
            return b'"qfuzz-case"' in f.read(200)
    except OSError:
        return False


class CorpusFile(pytest.File):
    """A case file: one item per backend that it expects something of."""

    def collect(self) -> Iterator["CorpusItem"]:
        from qfuzz.backends.discovery import canonical, default_specs
        from qfuzz.findings.conditions import names_backend
        from qfuzz.findings.corpus import read_case
        from qfuzz.ir.errors import QfuzzError

        try:
            file = read_case(self.path)
            chosen = self.config.getoption("--qfuzz-backend")
            specs = tuple(canonical(s) for s in chosen) if chosen else default_specs()
        except QfuzzError as e:
            raise self.CollectError(str(e)) from None
        for spec in specs:
            if not file.expect or any(names_backend(e, spec) for e in file.expect):
                yield CorpusItem.from_parent(self, name=spec, spec=spec, file=file)


class CorpusItem(pytest.Item):
    """One corpus file on one backend."""

    def __init__(self, *, spec: str, file: "CaseFile", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec, self.file = spec, file
        self.add_marker("qfuzz_corpus")

    def runtest(self) -> None:
        from qfuzz.findings.corpus import replay_entry

        client = _client(self.config, self.spec)
        for r in replay_entry(str(self.path), self.file, {self.spec: client.described[self.spec]}, _judge(client)):
            self._conclude(r)

    def _conclude(self, r: "Replayed") -> None:
        match r.status:
            case "skipped":
                pytest.skip(r.why)
            case "regressed":
                raise CorpusMismatch(f"{r.path}\n{r.backend}: {r.why}")
            case "fixed":
                self.config.stash[_KNOWN].append(f"{r.path} on {r.backend}: fixed: {r.why}")
            case "holds":
                if r.why.startswith("known issue"):
                    self.config.stash[_KNOWN].append(f"{r.path} on {r.backend}: {r.why}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, CorpusMismatch):
            return f"{excinfo.value}\nreplay: qfuzz replay {self.path} -b '{self.spec}'"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"{self.path.name}[{self.spec}]"


class CorpusMismatch(AssertionError):
    """A corpus entry that does not hold."""


def _judge(client: "WorkerClient") -> Any:
    def judge(case: "Case", spec: str) -> "BackendVerdict":
        return client.check(case, (spec,)).backends[0]

    return judge


_CLIENTS = pytest.StashKey[dict[str, "WorkerClient"]]()


def _client(config: pytest.Config, spec: str) -> "WorkerClient":
    """The session's worker for a backend."""
    from qfuzz.campaign.client import WorkerClient

    clients = config.stash.setdefault(_CLIENTS, {})
    if spec not in clients or clients[spec].process.poll() is not None:
        clients[spec] = WorkerClient((spec,))
    return clients[spec]


def pytest_sessionfinish(session: pytest.Session) -> None:
    for client in (session.config.stash.get(_CLIENTS, None) or {}).values():
        client.close()
    worker_output = getattr(session.config, "workeroutput", None)
    if worker_output is not None:  # under pytest-xdist the controller prints the summary
        known: list[str] = session.config.stash[_KNOWN]
        worker_output["qfuzz_known"] = known


def pytest_testnodedown(node: Any, error: object) -> None:
    node.config.stash[_KNOWN].extend(getattr(node, "workeroutput", {}).get("qfuzz_known", []))


pytest_testnodedown = pytest.hookimpl(optionalhook=True)(pytest_testnodedown)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """On a mismatch of a fuzz test: reduce it, write the finding folder, and say so in the failure."""
    import sys

    from qfuzz.findings.seen import KNOWN_SEEN

    known: list[str] = []
    token = KNOWN_SEEN.set(known)
    try:
        return (yield)
    except (AssertionError, BaseExceptionGroup) as e:
        if "qfuzz.oracle.verdicts" in sys.modules:
            mismatches = list(_mismatches_in(e))
            triaged = [_triage(item, m) for m in mismatches]  # every one is written, known or not
            if triaged and all(triaged):
                return None
        raise
    finally:
        KNOWN_SEEN.reset(token)
        item.config.stash[_KNOWN].extend(dict.fromkeys(known))


def _mismatches_in(e: BaseException) -> Iterator["Mismatched"]:
    from qfuzz.oracle.verdicts import Mismatched

    if isinstance(e, Mismatched):
        yield e
    elif isinstance(e, BaseExceptionGroup):  # Hypothesis raises several distinct failures as a group
        for inner in e.exceptions:
            yield from _mismatches_in(inner)
    elif e.__cause__ is not None or e.__context__ is not None:
        yield from _mismatches_in(e.__cause__ or e.__context__)  # type: ignore[arg-type]


def _triage(item: pytest.Item, mismatched: "Mismatched") -> bool:
    """Write findings; True where all of them are known issues. Notes on the exception say what was found and where."""
    from qfuzz.backends.discovery import load_backend
    from qfuzz.campaign.client import WorkerClient
    from qfuzz.campaign.conclude import Lab
    from qfuzz.findings.corpus import known_issues
    from qfuzz.findings.finding import write_finding
    from qfuzz.findings.signature import symptom_of
    from qfuzz.ir.errors import QfuzzError

    config = item.config
    case = mismatched.case
    out = Path(str(config.getoption("--qfuzz-out")))
    if case is None:
        return False
    _keep_case(out, item, case)
    folders = [Path(p) for p in config.getini("qfuzz_corpus")] or [config.rootpath / "corpus"]
    issues: tuple[KnownIssue, ...] = known_issues([p for p in folders if p.is_dir()])
    all_known = bool(mismatched.verdicts.findings)
    for verdict in mismatched.verdicts.findings:
        try:
            with WorkerClient((verdict.backend,)) as client:
                finding = Lab(client, issues).finding(
                    case,
                    verdict.backend,
                    symptom_of(verdict),
                    first_example=None,
                    reduce=not config.getoption("--qfuzz-no-reduce"),
                )
            if finding is None:
                all_known = False
                mismatched.add_note(f"{verdict.backend}: the {verdict.verdict} did not show again in a worker")
                continue
            path = write_finding(out, finding, load_backend(verdict.backend))
        except (QfuzzError, OSError) as e:
            # A backend object of the test's own has no spec to run it by; its case is kept all the same.
            all_known = False
            mismatched.add_note(f"{verdict.backend}: not reduced: {e}")
            continue
        if finding.known:
            config.stash[_KNOWN].append(f"{finding.signature.text} on {finding.backend}: known, {finding.known}")
            continue
        all_known = False
        shown = finding.verdict.mismatches[:1]
        mismatched.add_note(f"finding: {finding.signature.text}")
        mismatched.add_note(f"  {finding.backend}: {shown[0] if shown else finding.verdict.reason}")
        mismatched.add_note(f"  written to {path}; run: python {path / 'repro.py'}")
    return all_known


def _keep_case(out: Path, item: pytest.Item, case: "Case") -> None:
    """The failing case as it is, whatever becomes of Hypothesis's database."""
    import hashlib

    from qfuzz.findings.files import write_file
    from qfuzz.ops import CODEC

    data = CODEC.encode(case)
    write_file(out / "cases" / f"{item.name}-{hashlib.sha256(data).hexdigest()[:8]}.json", data)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    known = config.stash.get(_KNOWN, [])
    if not known:
        return
    terminalreporter.section("qfuzz known issues")
    for line in sorted(set(known)):
        terminalreporter.line(line)
    terminalreporter.line(f"{len(set(known))} known issues; they fail no test")

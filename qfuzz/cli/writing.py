"""How the findings of a campaign are written: a folder each, of a bug or of a change between two backends."""

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from qfuzz.backends.discovery import load_backend
from qfuzz.campaign.client import WorkerClient
from qfuzz.campaign.plan import Plan
from qfuzz.campaign.protocol import FoundCase
from qfuzz.campaign.run import Write
from qfuzz.findings.comparison import Side, comparison_files
from qfuzz.findings.files import write_folder
from qfuzz.findings.finding import Finding, write_finding
from qfuzz.ir.errors import BackendMissing, CampaignFailed
from qfuzz.ir.protocols import Backend
from qfuzz.oracle.verdicts import BackendVerdict


@contextlib.contextmanager
def writing(plan: Plan, out: Path) -> Iterator[Write]:
    """What writes the findings of `plan` under `out`; what the disk says ends the campaign, which can be resumed."""
    with ExitStack() as stack:
        pair = _Pair(plan.profile.specs, stack)

        def write(found: FoundCase) -> str:
            # A known issue is written already: its case lies in the corpus.
            if found.known:
                return found.known
            finding = found.finding()
            try:
                if plan.profile.compare:
                    return str(pair.write(out, finding))
                return str(write_finding(out, finding, _in_process(finding.backend)))
            except OSError as e:
                place = e.filename or out
                raise CampaignFailed(
                    f"{place}: {e.strerror or e}; --resume {out} goes on once it can be written"
                ) from e

        yield write


class _Pair:
    """Runs both sides of a change once more, in a worker that is started when it is first needed."""

    def __init__(self, specs: tuple[str, ...], stack: ExitStack) -> None:
        self._specs, self._stack = specs, stack
        self._client: WorkerClient | None = None

    def write(self, out: Path, finding: Finding) -> Path:
        """Write the change's folder."""
        if self._client is None:
            self._client = self._stack.enter_context(WorkerClient(self._specs))
        a, b = (self._side(self._client, finding, spec) for spec in self._specs)
        path = out / finding.signature.slug
        write_folder(path, comparison_files(finding.case, finding.verdict, finding.signature.text, a, b))
        return path

    def _side(self, client: WorkerClient, finding: Finding, spec: str) -> Side:
        got = client.values(finding.case, spec)
        refusal = f"{got.verdict}: {got.reason}" if isinstance(got, BackendVerdict) else ""
        backend = _in_process(spec)
        return Side(
            spec=spec,
            described=client.described[spec],
            contracts={} if backend is None else backend.contracts,
            values={} if isinstance(got, BackendVerdict) else got,
            refusal=refusal,
            backend=backend,
        )


def _in_process(spec: str) -> Backend | None:
    """The backend, to print its calls; loading it runs no kernel."""
    try:
        return load_backend(spec)
    except BackendMissing:
        return None

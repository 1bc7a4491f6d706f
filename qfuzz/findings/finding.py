"""A finding: a signature with its smallest case, and the folder that proves it."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from qfuzz.findings.files import write_folder
from qfuzz.findings.reproducers import reproducer_files
from qfuzz.findings.signature import Signature
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Backend
from qfuzz.oracle.verdicts import BackendVerdict


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A bug, as far as it is known.

    Attributes
    ----------
    backend
        Spec of the first backend that showed it; `backends` are all that reproduce the reduced case.
    verdict
        On the reduced case, of `backend`.
    first_example
        The lowest example, by index, that showed it; None outside a campaign.
    known
        Path of the corpus file that triages it, or nothing.
    reduction
        ``done``, ``stopped`` (attempts or time ran out), ``none`` (not asked for), or ``unstable`` (it comes and goes).
    environment
        What each backend says of itself, by spec.
    """

    signature: Signature
    case: Case
    backend: str
    backends: tuple[str, ...]
    verdict: BackendVerdict
    environment: Mapping[str, Mapping[str, str]]
    first_example: int | None = None
    known: str = ""
    reduction: str = "done"

    @property
    def n_elements(self) -> int:
        """All elements of the case's inputs and constants."""
        return self.case.n_elements


def write_finding(folder: Path, finding: Finding, backend: Backend | None) -> Path:
    """Write the finding's folder under `folder`, whole or not at all.

    Parameters
    ----------
    backend
        The guilty backend, if it can be had in this process: it says how its calls look in a script.

    Returns
    -------
    Path
        The folder.
    """
    path = folder / finding.signature.slug
    write_folder(
        path,
        reproducer_files(
            finding.case,
            finding.verdict,
            backend=backend,
            spec=finding.backend,
            signature=finding.signature.text,
            backends=finding.backends,
            described=finding.environment.get(finding.backend, {}),
        ),
    )
    return path

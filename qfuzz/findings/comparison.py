"""What is written of a change between two backends: the case, both sides' calls, and the elements that differ."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from qfuzz.findings.reproducers import network_lines
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import QfuzzError
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Scriptable
from qfuzz.ops import CODEC
from qfuzz.oracle.reference import Reference
from qfuzz.oracle.verdicts import BackendVerdict, told, told_interval

Array = npt.NDArray[Any]
ELEMENTS_SHOWN = 12


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two.

    Attributes
    ----------
    spec, described
        The backend, and what it says of itself.
    contracts
        What it promises, by operator.
    values
        The network's outputs by name; empty where there are none.
    refusal
        Why there are none.
    backend
        It as an object, if it can be had: it prints its calls.
    """

    spec: str
    described: Mapping[str, str]
    contracts: Mapping[str, Contract]
    values: Mapping[str, Array]
    refusal: str
    backend: object


def comparison_files(case: Case, verdict: BackendVerdict, signature: str, a: Side, b: Side) -> dict[str, bytes]:
    """All files of a change's folder, by relative name: `case.json`, `report.md`, and for each side a script."""
    files = {"case.json": CODEC.encode(case), "report.md": _report(case, verdict, signature, a, b).encode()}
    for folder, side in (("a", a), ("b", b)):
        if isinstance(side.backend, Scriptable):
            try:
                script = side.backend.script(case.network, case.arrays)
            except QfuzzError:
                continue
            head = [f'"""Prints what {side.spec} returns. Needs the framework and NumPy only."""', ""]
            head += [
                "from pathlib import Path",
                "",
                "import numpy as np",
                "",
                "HERE = Path(__file__).resolve().parent",
                "",
            ]
            tail = ["for name, value in outputs.items():", "    print(name, value.dtype, value.tolist())"]
            files[f"{folder}/run.py"] = ("\n".join([*head, *script.lines, "", *tail]) + "\n").encode()
            files |= {f"{folder}/{name}": data for name, data in script.files.items()}
    return files


def _report(case: Case, verdict: BackendVerdict, signature: str, a: Side, b: Side) -> str:
    parts = [f"# {verdict.op or 'network'}: {verdict.cause} between {a.spec} and {b.spec}", ""]
    parts += [f"- a: `{a.spec}`, version {a.described.get('version', '?')}"]
    parts += [f"- b: `{b.spec}`, version {b.described.get('version', '?')}", ""]
    parts += ["*Right* is what the exact reference admits; see the last two columns.", ""]
    for side, name in ((a, "a"), (b, "b")):
        if side.refusal:
            parts += [f"{name} returned nothing: {side.refusal}", ""]
    if not a.refusal and not b.refusal:
        parts += _table(case, a, b)
    parts += ["## Network", "", *network_lines(case), ""]
    for side, name in ((a, "a"), (b, "b")):
        parts += [f"## Environment of {name}", "", *(f"- {k}: {v}" for k, v in side.described.items()), ""]
    parts += [
        f"qfuzz signature: `{signature}`. `a/run.py` and `b/run.py` print what each side returns; "
        "`qfuzz check case.json -b SPEC` judges either."
    ]
    return "\n".join(parts) + "\n"


def _table(case: Case, a: Side, b: Side) -> list[str]:
    """The first elements that differ."""
    reference = Reference(case)
    exact = reference.exact()
    sets = [reference.whole(side.contracts) for side in (a, b)]
    rows: list[str] = []
    n = 0
    for name in case.network.outputs:
        before, after = a.values.get(name), b.values.get(name)
        if before is None or after is None or before.shape != after.shape or before.dtype != after.dtype:
            rows.append(f"| `{name}` | {_shape(before)} | {_shape(after)} | {_shape(exact[name])} | | |")
            n += 1
            continue
        bits = before.view(f"u{before.dtype.itemsize}") != after.view(f"u{after.dtype.itemsize}")
        for index in np.argwhere(bits):
            n += 1
            if n > ELEMENTS_SHOWN:
                continue
            at = tuple(int(i) for i in index)
            allowed = [told_interval(s[name].lo[at], s[name].hi[at]) for s in sets]
            cells = [f"`{name}{list(at)}`", *(told(v[at]) for v in (before, after, exact[name])), *allowed]
            rows.append(f"| {' | '.join(cells)} |")
    more = [f"{n - ELEMENTS_SHOWN} more elements differ.", ""] if n > ELEMENTS_SHOWN else []
    head = [
        "| element | a | b | exact | admissible for a | admissible for b |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return [*head, *rows, "", *more]


def _shape(array: Array | None) -> str:
    return "missing" if array is None else f"{array.dtype.name}{list(array.shape)}"


def is_regression(cause: str) -> bool:
    """Whether a change went from right to something else."""
    before, _, after = cause.partition(" -> ")
    return before == "right" and after != "right"

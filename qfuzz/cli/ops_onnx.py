"""The ONNX side of ``qfuzz ops``: each operator that the runtime has for quantized values, covered or not, and why."""

from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Any

from qfuzz.backends.discovery import parse_spec
from qfuzz.backends.onnx_coverage import COVERED, Covered, Row, rows, summary, without_kernel
from qfuzz.backends.onnx_kernels import NARROW, Key, Runtime, ask_runtime
from qfuzz.backends.statuses import STATUSES, counts
from qfuzz.cli.piped_console import PipedConsole
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.protocols import Backend
from qfuzz.ops import OPERATOR_NAMES
from qfuzz.strategies import cases_of

SAMPLES = 200
"""One-node cases drawn of each operator, to see in which types it is drawn."""

SHORT = {name: name.replace("uint", "u").replace("int", "i") for name in NARROW if "int" in name}
"""Heads of the columns of integer types; all kinds of float8 share one."""

_HEADS = (*SHORT.values(), "f8")

WIDTH = 40
"""Columns of an operator's name."""

LEGEND = "* drawn (in QDQ form, around the operator on real numbers); o the kernel takes it, not drawn; . not taken."


def asked(backends: Sequence[Backend]) -> Runtime | None:
    """What the first runtime among the backends tells; nothing, where there is none."""
    for b in backends:
        name, options = parse_spec(b.name)
        if name == "onnxruntime":
            return ask_runtime(options.get("python", ""))
    return None


def drawn_types(found: Sequence[Row]) -> Mapping[Key, frozenset[str]]:
    """Operators of ONNX in drawn cases of what covers these rows, in both forms, with the types that reach them."""
    from qfuzz.backends.onnx_dialect import FORMATS, lower, serialize  # where onnx is installed
    from qfuzz.backends.onnx_emitted import emitted

    reached: dict[Key, frozenset[str]] = {}
    wanted = {op for r in found for op in r.covered.operators}
    for op in (op for op in OPERATOR_NAMES if op in wanted):
        for case in islice(cases_of(0, 0, ops=(op,), max_nodes=1), SAMPLES):
            for form in FORMATS:
                try:
                    model = serialize(case.network, lower(case.network, form))
                except Unsupported:
                    continue
                for key, types in emitted(model).items():
                    reached[key] = reached.get(key, frozenset()) | types
    return reached


def selected_rows(runtime: Runtime, ops: Collection[str]) -> tuple[Row, ...]:
    """Rows that one of `ops` covers; all, where there are none."""
    return tuple(r for r in rows(runtime) if not ops or set(ops) & set(r.covered.operators))


def as_document(runtime: Runtime, found: Sequence[Row]) -> dict[str, Any]:
    """The matrix as plain data; the counts are those of the rows."""
    drawn = drawn_types(found)
    return {
        "version": runtime.version,
        "counts": {status.replace(" ", "_"): n for status, n in counts(tuple(found)).items()},
        "operators": [
            {
                "domain": r.key[0],
                "op": r.key[1],
                "status": r.status,
                "qoperator": list(r.covered.qoperator),
                "qdq": list(r.covered.qdq),
                "optimized": list(r.covered.optimized),
                "reason": r.reason,
                "kernel_types": list(r.kernel_types),
                "drawn_types": [t for t in NARROW if t in _drawn(r, drawn)],
            }
            for r in found
        ],
        "without_kernel": [{"domain": d, "op": n} for d, n in without_kernel(runtime)],
    }


def print_summary(console: PipedConsole, runtime: Runtime, *, listed: bool) -> None:
    """The counts in one line; what has no kernel, or how to see more."""
    if listed:
        names = ", ".join(map(_name, without_kernel(runtime)))
        console.print(f"Only in schemas, without a CPU kernel of their own: {names}.", markup=False)
    console.print(summary(runtime) + ("" if listed else " --onnx lists them."), markup=False)


def print_matrix(console: PipedConsole, found: Sequence[Row]) -> None:
    """Rows: those that are covered with their types, the others with their reasons."""
    drawn = drawn_types(found)
    for status in STATUSES:
        of = [r for r in found if r.status == status]
        if not of:
            continue
        if status == "covered":
            console.print(f"[bold]{status}: {len(of):<{WIDTH - 9}} {'  '.join(_HEADS)}  by[/bold]")
        else:
            console.print(f"[bold]{status}: {len(of)}[/bold]")
        if status == "out of scope":
            _print_reasons(console, of)
        else:
            for r in of:
                line = f"{_marks(r, drawn)}  {_by(r.covered)}" if status == "covered" else _missing(r)
                console.print(f"  {_name(r.key):{WIDTH - 2}} {line}", markup=False)
        console.print()
    console.print(LEGEND, markup=False)


def _print_reasons(console: PipedConsole, found: Sequence[Row]) -> None:
    for reason in dict.fromkeys(r.reason for r in found):
        console.print(f"  {reason}:", markup=False)
        console.print(
            f"      {', '.join(_name(r.key) for r in found if r.reason == reason)}", markup=False, style="dim"
        )


def _marks(row: Row, drawn: Mapping[Key, frozenset[str]]) -> str:
    seen = _drawn(row, drawn)
    marks = {t: "*" if t in seen else "o" if t in row.kernel_types else "." for t in NARROW}
    float8 = {marks[t] for t in NARROW if t not in SHORT}
    shown = [*(marks[t] for t in SHORT), next(m for m in "*o." if m in float8)]
    return "  ".join(f"{mark:>{len(head)}}" for mark, head in zip(shown, _HEADS, strict=True))


def _missing(row: Row) -> str:
    return f"{row.reason}; meant: {_by(row.covered)}" if row.covered.operators else row.reason


def _drawn(row: Row, drawn: Mapping[Key, frozenset[str]]) -> frozenset[str]:
    """What reaches the operator where it is written, and what its kernel gets of it where the optimizer writes it."""
    told = drawn.get(row.key, frozenset())
    if not row.covered.optimized:
        return told
    written = {key for key, c in COVERED.items() if set(c.operators) & set(row.covered.optimized)}
    return told | frozenset(row.kernel_types) & frozenset().union(*(drawn.get(key, frozenset()) for key in written))


def _by(covered: Covered) -> str:
    forms = {"both forms": (), "qoperator": covered.qoperator, "qdq": covered.qdq, "optimized": covered.optimized}
    if covered.qoperator == covered.qdq:
        forms = {"both forms": covered.qoperator, "optimized": covered.optimized}
    return ", ".join(f"{form}: {' '.join(ops)}" for form, ops in forms.items() if ops)


def _name(key: Key) -> str:
    domain, name = key
    return f"{domain}.{name}" if domain else name

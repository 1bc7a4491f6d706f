"""``qfuzz ops``: what is covered, as a matrix made from the code: one-node cases are drawn, backends asked."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import click
from rich.table import Table

from qfuzz.backends.discovery import BUILT_IN, DEFAULT_RIDES, canonical, is_installed, load_backend
from qfuzz.cli import ops_onnx, ops_torch
from qfuzz.cli.options import backend_option, output_options, print_json
from qfuzz.cli.piped_console import PipedConsole
from qfuzz.cli.rim import OK
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import BackendMissing
from qfuzz.ir.protocols import Backend, NotSupported
from qfuzz.oracle.reference import DEFAULT_CONTRACT
from qfuzz.strategies import cases_of
from qfuzz.strategies.families import selected_ops

SAMPLES = 60
"""One-node cases drawn of each operator, to see which forms of it a backend takes."""


@click.command("ops")
@backend_option
@click.option("--ops", multiple=True, metavar="PATTERN", help="Shell glob over operator names. Repeatable.")
@click.option("--onnx", is_flag=True, help="Only the operators of ONNX Runtime: covered, or not and why.")
@click.option("--torch", is_flag=True, help="Only the operators of PyTorch: covered, or not and why.")
@output_options
def command(
    specs: tuple[str, ...], ops: tuple[str, ...], onnx: bool, torch: bool, as_json: bool, quiet: bool, verbose: bool
) -> int:
    """Show operators by backends: the share of drawn one-node cases that a backend has a kernel for.

    Then, where ONNX Runtime or PyTorch is among the backends, how many of its operators for quantized values are
    covered.

    With -v: the contract of each operator and backend, its source, and the worst error measured in units of its bound;
    each operator of ONNX Runtime with the types that its kernels take and that are drawn, each of PyTorch with what
    calls it, or why it is not covered.
    """
    backends = [load_backend(s) for s in (map(canonical, specs) if specs else _all_installed())]
    selected = selected_ops(ops)
    wanted = {"onnx": onnx, "torch": torch}
    only = onnx or torch
    frameworks = [_Framework(name, backends, selected if ops else ()) for name in wanted if wanted[name] or not only]
    for f in frameworks:
        if wanted[f.name]:
            f.need()
    matrix = {} if only else {op: _support(op, backends) for op in selected}
    if as_json:
        document: dict[str, Any] = {"schema": 1, "ops": [_as_document(op, matrix[op], backends) for op in matrix]}
        document.update({f.name: told for f in frameworks if (told := f.as_document()) is not None})
        print_json(document)
        return OK
    console = PipedConsole(highlight=False, soft_wrap=True)
    if verbose:
        for op in matrix:
            _print_contracts(console, op, matrix[op], backends)
    elif not only:
        console.print(_table(matrix, backends))
        if not quiet:
            for i, b in enumerate(backends):
                console.print(f"{i + 1}: {b.name}", markup=False)
            console.print(
                "A number is the share of drawn one-node forms with a kernel, in percent; . is none. -v says why."
            )
    for f in frameworks:
        f.show(console, matrix=verbose or only, summary=not ops and not quiet, why=not quiet)
    return OK


SIDES: Mapping[str, tuple[Any, str]] = {"onnx": (ops_onnx, "onnxruntime"), "torch": (ops_torch, "torch")}
"""Option to what shows that framework's operators, and to what brings it."""


class _Framework:
    """What a framework among the backends tells of its operators; nothing, where there is none."""

    def __init__(self, name: str, backends: Sequence[Backend], ops: Sequence[str]) -> None:
        self.name = name
        self._side, self._extra = SIDES[name]
        self._told: Any = None
        self._rows: tuple[Any, ...] = ()
        self._why = ""
        try:
            self._told = self._side.asked(backends)
        except BackendMissing as e:
            self._why = str(e)
        if self._told is not None:
            self._rows = self._side.selected_rows(self._told, ops)

    def need(self) -> None:
        """Raise `BackendMissing` where there is nothing to show."""
        if self._told is None:
            there = f"no backend is of {self._extra}; pip install 'qfuzz[{self._extra}]', or name it with -b"
            raise BackendMissing(self._why or f"--{self.name}: {there}")

    def as_document(self) -> dict[str, Any] | None:
        """As plain data."""
        if self._told is not None:
            document: dict[str, Any] = self._side.as_document(self._told, self._rows)
            return document
        return {"why": self._why} if self._why else None

    def show(self, console: PipedConsole, *, matrix: bool, summary: bool, why: bool) -> None:
        """Print what is asked for."""
        if self._rows and matrix:
            self._side.print_matrix(console, self._rows)
        if self._told is not None and summary:
            self._side.print_summary(console, self._told, listed=matrix)
        if self._why and why:
            console.print(self._why, markup=False)


def _all_installed() -> list[str]:
    names = dict.fromkeys([s for s, _ in DEFAULT_RIDES] + [n for n in BUILT_IN if n != "planted"])
    return [n for n in names if is_installed(n)]


class _Support:
    """How one backend takes the drawn forms of one operator."""

    def __init__(self) -> None:
        self.taken = self.drawn = 0
        self.reasons: Counter[str] = Counter()

    @property
    def percent(self) -> int:
        # Any support at all is at least 1.
        return max(round(100 * self.taken / self.drawn), 1) if self.taken else 0


def _support(op: str, backends: Sequence[Backend]) -> dict[str, _Support]:
    found = {b.name: _Support() for b in backends}
    for number, case in enumerate(cases_of(0, 0, ops=(op,), max_nodes=1)):
        if number >= SAMPLES:
            break
        for b in backends:
            s = found[b.name]
            s.drawn += 1
            support = b.supports(case.network)
            if isinstance(support, NotSupported):
                s.reasons[support.reason.partition(": ")[2] or support.reason] += 1
            else:
                s.taken += 1
    return found


def _table(matrix: dict[str, dict[str, _Support]], backends: Sequence[Backend]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("operator")
    for i, _ in enumerate(backends):
        table.add_column(str(i + 1), justify="right")
    for op, row in matrix.items():
        table.add_row(op, *(str(row[b.name].percent) if row[b.name].taken else "." for b in backends))
    return table


def _contract(backend: Backend, op: str) -> Contract:
    return backend.contracts.get(op, DEFAULT_CONTRACT)


def measured_errors() -> dict[str, dict[str, Any]]:
    """Worst errors as `scripts/bench` measured them last, by backend and operator; empty where it never ran."""
    resource = files("qfuzz") / "measured.json"
    document: dict[str, dict[str, Any]] = json.loads(resource.read_text()) if resource.is_file() else {}
    return document


def _print_contracts(console: PipedConsole, op: str, row: dict[str, _Support], backends: Sequence[Backend]) -> None:
    measured = measured_errors()
    console.print(f"[bold]{op}[/bold]")
    for b in backends:
        s = row[b.name]
        if not s.taken:
            reason = s.reasons.most_common(1)[0][0] if s.reasons else "none drawn"
            console.print(f"  {b.name}: no kernel: {reason}", markup=False)
            continue
        c = _contract(b, op)
        worst = measured.get("errors", {}).get(b.name, {}).get(op)
        shown = "not measured" if worst is None else f"worst measured {worst:.2f} u*T"
        extra = "".join(
            [
                " + n" if c.accumulates_float else "",
                f", function {c.function_ulps:g} ulp" if c.function_ulps else "",
                f", bias {c.bias_steps:g} step" if c.bias_steps else "",
            ]
        )
        console.print(f"  {b.name}: {s.percent} %; {c.terms}, k = {c.k}{extra}, ties {c.tie}; {shown}", markup=False)
        console.print(f"      {c.source}", markup=False, style="dim")
        for reason, n in s.reasons.most_common(3):
            console.print(f"      {n} of {s.drawn} forms not: {reason}", markup=False, style="dim")


def _as_document(op: str, row: dict[str, _Support], backends: Sequence[Backend]) -> dict[str, Any]:
    measured = measured_errors().get("errors", {})
    return {
        "op": op,
        "backends": [
            {
                "name": b.name,
                "supported": bool(row[b.name].taken),
                "forms_drawn": row[b.name].drawn,
                "forms_supported": row[b.name].taken,
                "reasons": dict(row[b.name].reasons),
                "contract": _contract(b, op),
                "worst_error_in_u": measured.get(b.name, {}).get(op),
            }
            for b in backends
        ],
    }

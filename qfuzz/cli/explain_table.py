"""What ``qfuzz explain`` prints: the operands of one element, and a table with a column for each arithmetic."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from qfuzz.arithmetic.trace import Product, Step
from qfuzz.cli.piped_console import PipedConsole, table_console
from qfuzz.ir.network import Network, Node
from qfuzz.ir.qtype import Element, QType
from qfuzz.oracle.verdicts import told, told_interval

_PRODUCTS_SHOWN = 16
_PARTS = " <-"
"""Behind the first number of a column that is another one than the exact column's."""


def print_page(page: Any, network: Network, *, quiet: bool, verbose: bool) -> None:
    """The page of one element."""
    console = table_console()
    node = network.node(page.node)
    where = ", ".join(map(str, page.index))
    console.print(Text(f"{page.op} {page.node}[{where}]", style="bold"))
    if not quiet:
        for line in _types(network, node):
            console.print(Text(f"  {line}"), soft_wrap=True)
        _print_products(console, page.products, verbose=verbose)
    console.print()
    groups: dict[Any, list[Any]] = {}
    for column in page.backends:
        if column.returned is not None:
            groups.setdefault(column.exact, []).append(column)
    for exact, columns in groups.items():
        if exact != page.exact:
            console.print(Text("on what the nodes before it returned:"))
        console.print(_table(exact, columns))
        console.print()
    for column in page.backends:
        console.print(_line(column, verbose=verbose), soft_wrap=True)


def _types(network: Network, node: Node) -> list[str]:
    names = (*node.inputs, node.name)
    return [f"{name}: {_element(network.types[name].element)}" for name in names]


def _element(element: Element) -> str:
    if not isinstance(element, QType):
        return str(element)
    scales = ", ".join(f"{s!r} ({s.hex()})" for s in element.scale[:4]) + (", ..." if len(element.scale) > 4 else "")
    zero_points = ", ".join(map(str, element.zero_point[:4])) + (", ..." if len(element.zero_point) > 4 else "")
    return f"{element.dtype}, scale {scales}, zero point {zero_points}"


def _print_products(console: PipedConsole, products: Sequence[Product], *, verbose: bool) -> None:
    if not products:
        return
    shown = products if verbose else products[:_PRODUCTS_SHOWN]
    more = len(products) - len(shown)
    console.print(Text(f"  {len(products)} products of stored integers, each less its zero point:"))
    texts = [f"{p.x} * {p.w} -> {p.product}" for p in shown]
    console.print(Text("    " + "; ".join(texts) + (f"; {more} more (-v)" if more else "")), soft_wrap=True)


def _table(exact: Sequence[Step], columns: Sequence[Any]) -> Table:
    """Rows are steps; backends with the same numbers share a column."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    alike: dict[Any, list[Any]] = {}
    for c in columns:
        alike.setdefault((c.models[:1], c.steps, c.returned, c.lo, c.hi), []).append(c)
    table.add_column("")
    table.add_column("exact", overflow="fold")
    for same in alike.values():
        explained = f"as {same[0].models[0]}" if same[0].models else "unexplained"
        table.add_column("\n".join([*(c.backend for c in same), explained]), overflow="fold")
    columns = [same[0] for same in alike.values()]
    listed = [exact, *(c.steps for c in columns)]
    names: list[str] = []
    for steps in listed:
        place = 0
        for s in steps:
            if s.name in names:
                place = names.index(s.name) + 1
            else:
                names.insert(place, s.name)
                place += 1
    known = {s.name: s for s in exact}
    parted = [False] * len(columns)
    for name in names:
        row = [Text(name), _cell(known.get(name))]
        for i, c in enumerate(columns):
            own = {s.name: s for s in c.steps}.get(name)
            parts = own is not None and name in known and _differs(known[name], own) and not parted[i]
            parted[i] |= parts
            row.append(_cell(own, _PARTS if parts else ""))
        table.add_row(*row)
    returned = [told(c.returned) + (_PARTS if c.verdict == "violation" else "") for c in columns]
    table.add_row(Text("returned"), Text(""), *(Text(r, style="bold red" if _PARTS in r else "") for r in returned))
    allowed = [told_interval(c.lo, c.hi) for c in columns]
    table.add_row(Text("admissible"), Text(""), *map(Text, allowed))
    return table


def _differs(exact: Step, own: Step) -> bool:
    try:
        return float(exact.value) != float(own.value)
    except ValueError:
        return exact.value != own.value


def _cell(step: Step | None, mark: str = "") -> Text:
    if step is None:
        return Text("")
    text = step.value + (f" {step.hex}" if step.hex else "") + mark
    return Text(text, style="bold yellow" if mark else "")


def _line(column: Any, *, verbose: bool) -> Text:
    if column.fused is not None:
        text = (
            f"{column.backend}: fused, without showing what lies between, it returns {told(column.fused)}; as shown, "
        )
        return Text(text, style="bold").append_text(_said(column, verbose=verbose))
    return _said(column, verbose=verbose)


def _said(column: Any, *, verbose: bool) -> Text:
    if column.returned is None:
        return Text(f"{column.backend}: {column.verdict}", style="yellow")
    said = (f"{column.backend}: " if column.fused is None else "") + f"{column.verdict}; "
    if not column.models:
        return Text(said + "unexplained: no model of the catalogue gives all elements of this output", style="bold")
    what = ", ".join(f"{f} {c}".replace("_", " ") for f, c in column.choices.items()) or "the exact arithmetic"
    shown = column.models[1:] if verbose else column.models[1:4]
    more = f", and {len(column.models) - 1 - len(shown)} more (-v)" if len(column.models) - 1 > len(shown) else ""
    others = f"; so do {', '.join(shown)}{more}" if shown else ""
    return Text(f"{said}all elements as {column.models[0]} gives them: {what}{others}")

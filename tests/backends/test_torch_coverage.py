"""The matrix of the PyTorch side against the installed release: nothing is left out, every claim is true."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec
import pytest

from qfuzz.backends.discovery import BUILT_IN, parse_spec
from qfuzz.backends.statuses import counts
from qfuzz.backends.torch_coverage import COVERED, Covered
from qfuzz.backends.torch_matrix import Row, rows, summary
from qfuzz.backends.torch_operators import Operator, Torch, ask_torch
from qfuzz.backends.torch_scope import GENERATED, NO_KERNEL, NOT_YET, OUT_OF_SCOPE, OUTDATED
from qfuzz.ir.errors import BackendMissing
from qfuzz.ops import OPERATOR_NAMES

torch_itself = pytest.importorskip("torch", reason="torch is not installed: it tells which operators there are")

from torch_trace import DIALECTS, traced  # noqa: E402  after the skip

CONSTRAINTS = Path(__file__).resolve().parent.parent.parent / "scripts" / "constraints.txt"
PINNED = re.findall(r"^torch==([\d.]+)", CONSTRAINTS.read_text(encoding="utf-8"), flags=re.MULTILINE)

LEAST, MOST = 40, 1000
"""How many drawn cases of an operator are executed, and how many before it is said not to call what it is said to."""

EVERY = ("relu", "add", "conv")
"""Operators that stand for all, where every value of the eager dialect is said to be made or read with one of torch."""


@cache
def torch() -> Torch:
    return ask_torch()


@cache
def operators() -> dict[str, Operator]:
    return torch().by_name()


def is_pinned() -> bool:
    return [torch().version.partition("+")[0]] == PINNED


# Nothing is left out.


def test_every_operator_of_torch_is_in_a_table() -> None:
    new = [r.name for r in rows(torch()) if r.status == "unlisted"]
    assert not new, (
        f"torch {torch().version} has {new}: say what covers each in qfuzz/backends/torch_coverage.py, or in "
        "qfuzz/backends/torch_scope.py why nothing does"
    )
    assert len(rows(torch())) > 400, "torch tells of nothing"


@pytest.mark.parametrize(
    ("name", "kernels", "arguments"),
    [
        ("quantized::new", (), ""),
        ("onednn::new.tensor", ("MkldnnCPU",), ""),
        ("quantized_decomposed::new", ("CompositeExplicitAutograd",), ""),
        ("aten::new", ("CPU", "QuantizedCPU"), "Tensor self"),
        ("aten::_weight_int3pack_mm", ("CPU",), "Tensor self, Tensor mat2"),
        ("aten::choose_qparams_new", ("CompositeImplicitAutograd",), "Tensor self"),
        ("aten::new.overload", ("CPU",), "Tensor self, Tensor scale, Tensor zero_point"),
        ("other::new", ("CPU",), "Tensor self, int quant_min, int quant_max"),
    ],
)
def test_a_new_operator_would_be_noticed(name: str, kernels: tuple[str, ...], arguments: str) -> None:
    new = Operator(name, f"{name}({arguments}) -> Tensor", kernels, False)
    (row,) = (r for r in rows(Torch("9", (*torch().operators, new))) if r.status == "unlisted")
    assert row.name == name


@pytest.mark.parametrize("name", ["aten::new", "aten::quantile.new", "prims::new", "other::print"])
def test_other_operators_are_not_in_question(name: str) -> None:
    new = Operator(name, f"{name}(Tensor self, float? scales=None, Tensor scale) -> Tensor", ("CPU",), False)
    assert rows(Torch("9", (*torch().operators, new))) == rows(torch())


def test_each_operator_is_in_one_table_and_each_table_is_sorted() -> None:
    tables: Sequence[Sequence[str]] = [list(COVERED), list(NOT_YET), list(OUT_OF_SCOPE)]
    assert sum(map(len, tables)) == len(set().union(*tables))
    assert all(reason for reason in (*NOT_YET.values(), *OUT_OF_SCOPE.values()))
    for table in tables:
        assert table == sorted(table)


def test_no_entry_is_of_the_past() -> None:
    if not is_pinned():
        pytest.skip(f"torch {torch().version} is not the pinned {PINNED}: it may lack what that has")
    gone = [n for n in (*COVERED, *NOT_YET, *OUT_OF_SCOPE) if n not in operators()]
    assert not gone, f"torch {torch().version} has no such operators; take them out of the tables"
    idle = [n for n in (*NOT_YET, *OUT_OF_SCOPE) if not operators()[n].quantizes]
    assert not idle, f"{idle} are not in question: they need no reason"


# Reasons about kernels are true.


def test_what_has_no_kernel_is_said_to_have_none() -> None:
    said = {n for n, why in OUT_OF_SCOPE.items() if why == NO_KERNEL and n in operators()}
    assert said == {n for n in OUT_OF_SCOPE if n in operators() and not operators()[n].kernels}


def test_what_is_generated_needs_no_entry() -> None:
    generated = {o.name for o in torch().operators if o.generated}
    assert {"aten::quantize_per_tensor.out", "aten::int_repr.out"} <= generated
    assert not generated & {*NOT_YET, *OUT_OF_SCOPE}
    assert all(r.reason == GENERATED for r in rows(torch()) if r.name in generated and r.status == "out of scope")


@pytest.mark.parametrize("name", [n for n, why in OUT_OF_SCOPE.items() if why == OUTDATED])
def test_what_is_outdated_refuses(name: str) -> None:
    if name not in operators():
        pytest.skip(f"torch {torch().version} has no {name}")
    namespace, _, rest = name.partition("::")
    operator, _, overload = rest.partition(".")
    call = getattr(getattr(getattr(torch_itself.ops, namespace), operator), overload or "default")
    weight = torch_itself.ones(2, 4)
    if "QuantizedCPU" in operators()[name].kernels:
        weight = torch_itself.quantize_per_tensor(weight, 1.0, 0, torch_itself.qint8)
    with pytest.raises(RuntimeError, match=r"outdated|upgrade"):
        call(weight)


# Every claim is true.


def said_of(op: str, dialect: str) -> frozenset[str]:
    """What this operator of qfuzz is said to call in this dialect, in the installed release."""
    return frozenset(
        name
        for name, c in COVERED.items()
        if name in operators() and (op in getattr(c, dialect) or (c.every and dialect == "eager" and op in EVERY))
    )


@cache
def called(op: str, dialect: str) -> frozenset[str]:
    return traced(op, dialect, said_of(op, dialect), operators(), least=LEAST, most=MOST)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("op", OPERATOR_NAMES)
def test_what_is_said_to_be_covered_is_called_and_nothing_else(op: str, dialect: str) -> None:
    silent = said_of(op, dialect) - called(op, dialect)
    assert not silent, f"drawn cases of {op} do not call {sorted(silent)}"
    stale = called(op, dialect) & set(NOT_YET)
    assert not stale, f"drawn cases of {op} call {sorted(stale)}: say so in COVERED of qfuzz/backends/torch_coverage.py"


def test_every_backend_of_torch_is_asked() -> None:
    asked = {parse_spec(spec)[0] for specs in DIALECTS.values() for spec in specs}
    assert asked == {name for name, known in BUILT_IN.items() if known.framework == "torch"}


def test_every_claim_names_operators_of_qfuzz() -> None:
    for name, claim in COVERED.items():
        assert claim.every or claim.operators, name
        assert set(claim.operators) <= set(OPERATOR_NAMES), name


def test_a_false_claim_would_be_noticed() -> None:
    for op, dialect, name in (
        ("add", "eager", "quantized::linear"),
        ("linear", "export", "quantized::linear"),
        ("add", "eager", "onednn::qadd.tensor"),
        ("concat", "export", "aten::cat"),
    ):
        assert name not in called(op, dialect)


# How it is said.


def test_the_sentence_has_the_counts() -> None:
    found = rows(torch())
    n = counts(found)
    said = [int(w) for w in re.findall(r"(?<![\d.])\d+(?= (?:operators|are))", summary(torch()))]
    assert said == [len(found), *(n[s] for s in ("covered", "not yet", "out of scope", "unlisted") if n[s])]
    assert sum(n.values()) == len(found)
    assert not any(r.status == "covered" and (r.reason or r.covered == Covered()) for r in found)
    assert all(r.reason and r.covered == Covered() for r in found if r.status != "covered")


def test_rows_survive_as_plain_data() -> None:
    found = rows(torch())
    assert msgspec.convert(msgspec.to_builtins(found), tuple[Row, ...]) == found


def test_a_torch_that_cannot_be_imported_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "torch"
    broken.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    for text in ("raise OSError('libx.so: no such file')", "import os; os.abort()", "print('[]')\n_C = 3"):
        (broken / "__init__.py").write_text(text, encoding="utf-8")
        with pytest.raises(BackendMissing, match=r"^torch tells nothing of its operators: [^\n]+$"):
            ask_torch()
    with pytest.raises(BackendMissing, match=r"^torch tells nothing of its operators: [^\n]+$"):
        ask_torch(str(tmp_path / "python"))

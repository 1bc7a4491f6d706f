"""Laws of scaled_mm: next to float64 products of what ml_dtypes reads, its roundings, and its infinities and NaN."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW

from qfuzz.exact.reals import FilterCount
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import FLOAT8, Element, QType, QuantizedDType
from qfuzz.ir.tensor import DTYPES, TensorType
from qfuzz.ops.scaled_mm import ScaledMm
from qfuzz.ops.semantics import Operand
from qfuzz.oracle.admissible import Admissible, admissible, floats_as_judged
from qfuzz.oracle.check import judge

Array = np.ndarray[Any, Any]
KERNEL = Contract(terms="real", k=4, tie="half_even", source="test", accumulates_float=True)
E4M3: QuantizedDType = "float8_e4m3fn"
E5M2: QuantizedDType = "float8_e5m2"
INF, NAN = float("inf"), float("nan")
every_kind = pytest.mark.parametrize("kind", FLOAT8)


def _unit(kind: QuantizedDType, scale: float = 1.0) -> QType:
    return QType.per_tensor(kind, scale, 0)


def _operands(x: Any, w: Any, q_x: QType, q_w: QType, bias: Any = None) -> list[Operand]:
    arrays = [np.array(a, dtype=np.float32).astype(DTYPES[q.dtype]) for a, q in ((x, q_x), (w, q_w))]
    operands = [Operand.point(TensorType(a.shape, q), a) for a, q in zip(arrays, (q_x, q_w), strict=True)]
    if bias is not None:
        operands.append(Operand.point(TensorType((len(bias),), "float32"), np.array(bias, dtype=np.float32)))
    return operands


def _allowed(operands: list[Operand], element: Element) -> Admissible:
    ScaledMm().infer([o.type for o in operands], element)
    return admissible(ScaledMm().image(operands, element), KERNEL, element, FilterCount())


def _violations(got: Array, allowed: Admissible) -> int:
    return judge(floats_as_judged(got, allowed), allowed)[0].violation


def _to(value: float, kind: QuantizedDType, scale: float = 1.0) -> Array:
    """1 * 0 + value, as a float8."""
    operands = _operands([[1.0]], [[0.0]], _unit(E4M3), _unit(E4M3), [value])
    exact = _allowed(operands, _unit(kind, scale)).exact
    assert exact is not None
    return exact


@st.composite
def matrices(draw: Any, kind: QuantizedDType, shape: tuple[int, int]) -> Array:
    n = shape[0] * shape[1]
    bits = draw(st.lists(st.integers(0, 255), min_size=n, max_size=n))
    numbers = np.array(bits, dtype=np.uint8).view(DTYPES[kind]).reshape(shape)
    return np.where(np.isfinite(numbers), numbers, np.zeros((), numbers.dtype))


@every_kind
@LAW
@given(data=st.data())
def test_products_are_those_of_dequantized_rows_and_columns(kind: QuantizedDType, data: st.DataObject) -> None:
    scales = st.sampled_from([1.0, 0.5, 3.0, float(np.float32(0.1))])
    x, w = data.draw(matrices(kind, (2, 3))), data.draw(matrices(E5M2, (4, 3)))
    of_rows, of_columns = (tuple(data.draw(scales) for _ in range(n)) for n in (2, 4))
    q_x, q_w = QType(kind, of_rows, (0, 0), 0), QType(E5M2, of_columns, (0,) * 4, 0)
    factors = x.astype(np.float64) * np.array(of_rows)[:, None], w.astype(np.float64) * np.array(of_columns)[:, None]
    exact = _allowed(_operands(x, w, q_x, q_w), "float32").exact
    size = np.abs(factors[0]) @ np.abs(factors[1]).T
    assert (np.abs(exact - factors[0] @ factors[1].T) <= 2.0**-23 * size).all()


@LAW
@given(data=st.data())
def test_float32_sums_in_any_order_are_admissible(data: st.DataObject) -> None:
    x, w = data.draw(matrices(E4M3, (2, 5))), data.draw(matrices(E5M2, (3, 5)))
    a, b = np.float32(0.1), np.float32(3.0)
    allowed = _allowed(_operands(x, w, _unit(E4M3, float(a)), _unit(E5M2, float(b))), "float32")
    for order in (np.arange(5), np.arange(5)[::-1]):
        early, late = np.zeros((2, 3), dtype=np.float32), np.zeros((2, 3), dtype=np.float32)
        for k in order:
            left, right = x[:, k : k + 1].astype(np.float32), w[:, k].astype(np.float32)
            early, late = early + (left * a) * (right * b), late + left * right
        assert _violations(early, allowed) == 0
        assert _violations(late * (a * b), allowed) == 0


def test_a_product_that_is_exact_has_one_result() -> None:
    operands = _operands([[1.5, -4.0]], [[2.0, 0.5]], _unit(E4M3, 2.0), _unit(E5M2, 0.25), [0.125])
    allowed = _allowed(operands, "float32")
    assert allowed.lo.tolist() == allowed.hi.tolist() == [[0.625]]
    wrong = np.nextafter(np.array([[0.625]], dtype=np.float32), np.float32(1))
    assert _violations(wrong, allowed) == 1


@every_kind
@LAW
@given(value=st.floats(-(2.0**20), 2.0**20, width=32))
def test_a_float8_is_the_nearest_number_of_its_kind(kind: QuantizedDType, value: float) -> None:
    (got,) = _to(value, kind).ravel()
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = float(np.float32(value).astype(DTYPES[kind]).astype(np.float64))
    if np.isfinite(nearest):
        assert got == nearest
    else:
        largest = float(ml_dtypes.finfo(DTYPES[kind]).max)
        assert got == np.copysign(largest if kind == E4M3 else np.inf, value)


@pytest.mark.parametrize(
    ("kind", "beyond"), [(E4M3, 448.0), (E5M2, INF), ("float8_e4m3fnuz", NAN), ("float8_e5m2fnuz", NAN)]
)
def test_beyond_the_largest_number_is_what_torch_makes_of_it(kind: QuantizedDType, beyond: float) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: it tells what it makes of large numbers")
    allowed = _allowed(_operands([[1.0]], [[0.0]], _unit(E4M3), _unit(E4M3), [1e6]), _unit(kind))
    for value in (1e6, INF):
        bits = torch.tensor([[value]]).to(getattr(torch, kind)).view(torch.uint8).numpy()
        got = bits.view(DTYPES[kind])
        np.testing.assert_array_equal(got.astype(np.float64), [[beyond]])
        assert _violations(got, allowed) == 0


def test_the_result_is_divided_by_the_scale_of_the_output() -> None:
    assert _to(96.0, E4M3, 4.0).tolist() == [[24.0]]
    assert _to(3.0, E5M2, 3.0).tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("row", "column", "result"),
    [
        ([INF, 1.0], [2.0, 1.0], INF),
        ([INF, 1.0], [-2.0, 1.0], -INF),
        ([INF, 1.0], [0.0, 1.0], NAN),
        ([INF, -INF], [1.0, 1.0], NAN),
        ([INF, -INF], [1.0, -1.0], INF),
        ([NAN, 1.0], [0.0, 1.0], NAN),
    ],
)
def test_infinities_and_nan_are_those_of_ieee_754(row: list[float], column: list[float], result: float) -> None:
    operands = _operands([row, [1.0, 1.0]], [column], _unit(E5M2, 0.5), _unit(E5M2), [3.0])
    allowed = _allowed(operands, "float32")
    expected = np.array([[result], [0.5 * sum(column) + 3.0]], dtype=np.float32)
    assert _violations(expected, allowed) == 0
    assert _violations(np.zeros_like(expected), allowed) >= 1


def test_nothing_summed_leaves_the_bias() -> None:
    operands = _operands(np.zeros((2, 0)), np.zeros((1, 0)), _unit(E4M3), _unit(E4M3), [1.5])
    assert _allowed(operands, "bfloat16").lo.tolist() == [[1.5], [1.5]]


def _rows(kind: QuantizedDType, n: int) -> QType:
    return QType(kind, (1.0,) * n, (0,) * n, 0)


@pytest.mark.parametrize(
    ("q_x", "q_w", "shapes", "element", "message"),
    [
        (_unit("uint8"), _unit(E4M3), ((2, 3), (4, 3)), "float32", "x: uint8; needs float8"),
        (_unit(E4M3), _unit(E4M3), ((2, 3), (4, 2)), "float32", r"shapes \(2, 3\), \(4, 2\)"),
        (_unit(E4M3), _unit(E4M3), ((2, 3), (0, 3)), "float32", "N at least 1"),
        (_rows(E4M3, 2), _unit(E4M3), ((2, 3), (4, 3)), "float32", "scales on axes 0, None"),
        (_unit(E4M3), _unit(E4M3), ((2, 3), (4, 3)), _unit("uint8"), "output: uint8"),
        (_unit(E4M3), _unit(E4M3), ((2, 3), (4, 3)), "int32", "output: int32"),
        (_unit(E4M3, 2.0**60), _unit(E4M3, 2.0**60), ((2, 3), (4, 3)), "float32", "overflows float32"),
        (_unit(E4M3, 2.0**-70), _unit(E4M3, 2.0**-70), ((2, 3), (4, 3)), "float32", "scale product"),
    ],
)
def test_types_are_checked(q_x: QType, q_w: QType, shapes: Any, element: Element, message: str) -> None:
    with pytest.raises(InvalidCase, match=message):
        ScaledMm().infer([TensorType(shapes[0], q_x), TensorType(shapes[1], q_w)], element)


def test_a_bias_is_of_reals() -> None:
    x, w = TensorType((2, 3), _unit(E4M3)), TensorType((4, 3), _unit(E4M3))
    assert ScaledMm().infer([x, w, TensorType((4,), "bfloat16")], "float32") == (2, 4)
    with pytest.raises(InvalidCase, match="bias: int32"):
        ScaledMm().infer([x, w, TensorType((4,), "int32")], "float32")

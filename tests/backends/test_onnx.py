"""The ONNX backends against the exact reference: operator by operator, near ties, and on drawn networks."""

import itertools
import json
import platform
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from single_ops import SINGLE_OPS, Draw

from qfuzz.backends.environment import cpu_flags
from qfuzz.ir.errors import InvalidCase, Rejected, Unsupported
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.protocols import NotSupported, Scriptable, Supported
from qfuzz.ir.qtype import Element, QType, float32
from qfuzz.ir.tensor import DTYPES, Tensor, TensorType
from qfuzz.ops import OPERATOR_NAMES
from qfuzz.ops.activation import Relu, Sigmoid
from qfuzz.ops.attention import Attention
from qfuzz.ops.binary import Div
from qfuzz.ops.conv_transpose import ConvTranspose
from qfuzz.ops.convolution import Conv, ConvInteger, unit_conv
from qfuzz.ops.dynamic import DynamicLayer
from qfuzz.ops.dynamic_convolution import DynamicConv
from qfuzz.ops.interpolation import Interpolate
from qfuzz.ops.linear import Linear
from qfuzz.ops.lstm import Lstm
from qfuzz.ops.matmul import LinearInteger, MatMul, MatMulInteger
from qfuzz.ops.mixture import Moe
from qfuzz.ops.movement import Flatten, Pad, Transpose
from qfuzz.ops.pooling import AvgPool, GlobalAvgPool, MaxPool
from qfuzz.ops.quantization import Quantize, Requantize
from qfuzz.ops.rearrangement import Expand
from qfuzz.ops.repetition import GatherElements
from qfuzz.ops.selection import Maximum, Minimum, Where
from qfuzz.ops.softmax import Softmax
from qfuzz.ops.weight_only import Embedding, WeightOnlyLinear
from qfuzz.oracle.check import check
from qfuzz.oracle.measure import worst_errors
from qfuzz.oracle.verdicts import BackendVerdict, Outcome
from qfuzz.strategies.generate import cases_of
from qfuzz.strategies.near_ties import NEAR_TIE_OPS, near_tie_cases

onnx = pytest.importorskip("onnx", reason="onnx is not installed: the ONNX backends cannot run")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: its backends cannot run")

from qfuzz.backends import onnx_executor, onnx_reference_executor  # noqa: E402  after the skips
from qfuzz.backends.onnx_backends import REFUSALS, OnnxRuntimeBackend  # noqa: E402
from qfuzz.backends.onnx_builder import Builder, lower_graph  # noqa: E402
from qfuzz.backends.onnx_dialect import FORMATS, lower, serialize  # noqa: E402
from qfuzz.backends.onnx_opsets import OPSET  # noqa: E402
from qfuzz.backends.onnx_reference import OnnxReferenceBackend  # noqa: E402

RUNTIMES = [OnnxRuntimeBackend(f, o) for f in ("qoperator", "qdq") for o in ("disable", "basic", "extended", "all")]
REFERENCES = [OnnxReferenceBackend("qdq"), OnnxReferenceBackend("qoperator")]
BACKENDS: list[Any] = [*RUNTIMES, *REFERENCES]
every_backend = pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b.name)

SEEDS = 6
NEAR_TIES = 6
DRAWN = 120


# True bugs of the frameworks, as conditions on a network: a backend that shows them is not wrong about anything else.


def _rounds_reciprocal(node: Node) -> bool:
    """QLinearSoftmax computes with floor(1 / scale_y)."""
    return isinstance(node.op, Softmax) and isinstance(node.element, QType) and (1 / node.element.scale[0]) % 1 != 0


def _overhangs(network: Network, node: Node) -> bool:
    """QLinearAveragePool counts what a last window of ceil_mode has beyond the padding."""
    return isinstance(node.op, AvgPool) and node.op.ceil_mode and node.op.count_include_pad


def _pools_out_of_bounds(network: Network, node: Node) -> bool:
    """The reference evaluator's pools fail for padding, ceil_mode and empty batches."""
    if isinstance(node.op, MaxPool | AvgPool):
        return any(node.op.padding) or node.op.ceil_mode or 0 in network.types[node.inputs[0]].shape
    return isinstance(node.op, GlobalAvgPool | Flatten) and 0 in network.types[node.inputs[0]].shape


def _channels_of_images(network: Network, node: Node) -> bool:
    """The reference evaluator's QLinearConv and ConvInteger lay what weights have per channel out for images only."""
    if not isinstance(node.op, Conv | ConvInteger | DynamicConv):
        return False
    return len(node.op.strides) != 2 and network.types[node.inputs[1]].qtype.axis is not None


def _infers_fewer_dimensions(network: Network, node: Node) -> bool:
    """ONNX infers no whole shape of a ConvTranspose whose output_shape is below the input's: readers are refused."""
    if not isinstance(node.op, ConvTranspose) or not network.consumers(node.name):
        return False
    x, y = (network.types[name].shape for name in (node.inputs[0], node.name))
    return node.op.says_sizes and any(b < a for a, b in zip(x[2:], y[2:], strict=True))


def _transposes_wrongly(network: Network, node: Node) -> bool:
    """The reference evaluator's ConvTranspose ignores `output_shape`; of groups, it has plain depthwise ones."""
    if not isinstance(node.op, ConvTranspose):
        return False
    channels, filters = network.types[node.inputs[1]].shape[:2]
    depthwise = node.op.groups == channels and filters == 1 and len(node.inputs) == 2
    unsaid = node.op.says_sizes and any(node.op.padding)
    return (node.op.groups > 1 and not depthwise) or unsaid or network.types[node.inputs[0]].shape[0] == 0


def _gathers_equal_shapes(network: Network, node: Node) -> bool:
    """The reference evaluator's GatherElements takes as many indices as data along other axes, and from the front."""
    if not isinstance(node.op, GatherElements):
        return False
    shape, axis = network.types[node.inputs[0]].shape, node.op.axis
    pairs = zip(shape, node.op.indices_shape, strict=True)
    return axis < 0 or shape[axis] > 64 or any(n != k for d, (n, k) in enumerate(pairs) if d != axis)


def _pads_by_less_than_nothing(_: Network, node: Node) -> bool:
    """op_pad.py hands pads to numpy.pad, which takes none below 0 (known issue onnx_reference_pad_negative)."""
    return isinstance(node.op, Pad) and min(node.op.padding) < 0


def _pads_integers_with_nan(network: Network, node: Node) -> bool:
    """The reference evaluator's MaxPool of strides 1 pads with NaN, which stored integers cannot hold."""
    return isinstance(node.op, MaxPool) and all(s == 1 for s in node.op.strides)


def _divides_by_zero(case: Case) -> bool:
    """The reference evaluator's QuantizeLinear casts an infinity to int32 before it saturates, which gives qmin."""
    for n in case.network.nodes:
        if isinstance(n.op, Div):
            zero_point = case.network.types[n.inputs[1]].qtype.zero_point[0]
            divisor = case.feeds.get(n.inputs[1])
            if divisor is None or (divisor.array == zero_point).any():
                return True
    return False


def _saturates_pairs(network: Network, node: Node) -> bool:
    """Without VNNI, x86 kernels sum pairs of products in 16 bits."""
    has_pairs = platform.machine() == "x86_64" and not cpu_flags() & {"avx_vnni", "avx512_vnni", "amx_int8"}
    summing = Attention | Conv | ConvInteger | Linear | LinearInteger | Lstm | MatMul | MatMulInteger | DynamicLayer
    return has_pairs and isinstance(node.op, summing) and any(network.types[i].dtype == "int8" for i in node.inputs[:3])


def _expands_to_nothing(network: Network, node: Node) -> bool:
    """ExpandElimination drops an Expand that makes a dimension empty."""
    return isinstance(node.op, Expand) and 0 in node.op.shape


def _resizes_channels_last(network: Network, node: Node) -> bool:
    """Kernels for channels last have weights of 10 bits, round twice, clip int8, or copy what has a scale."""
    shape = network.types[node.inputs[0]].shape
    return isinstance(node.op, Interpolate) and len(shape) == 4 and node.op.samplings(shape)[1].scale != 1


def _copies_what_has_a_scale(network: Network, node: Node) -> bool:
    """With antialiasing, a dimension whose length stays is copied, whatever its scale."""
    samplings = node.op.samplings(network.types[node.inputs[0]].shape) if isinstance(node.op, Interpolate) else ()
    stays = any(s.scale != 1 and s.size == s.out for s in samplings)
    return isinstance(node.op, Interpolate) and node.op.antialias and stays


def _keeps_aspect_of_axes_from_the_back(network: Network, node: Node) -> bool:
    """Axes that are counted from the back are not resized where an aspect ratio is kept."""
    return isinstance(node.op, Interpolate) and node.op.aspect != "stretch" and any(a < 0 for a in node.op.axes)


def _rounds_passes(network: Network, node: Node) -> bool:
    """With antialiasing, stored integers are rounded between the passes over a width and a height, and int8 clipped."""
    return isinstance(node.op, Interpolate) and node.op.antialias


def _resizes_integers_cubically(network: Network, node: Node) -> bool:
    """Resize in cubic mode throws on stored integers."""
    return isinstance(node.op, Interpolate) and node.op.mode == "cubic"


def _resizes_by_itself(network: Network, node: Node) -> bool:
    """The reference evaluator's Resize fails for negative axes and empty batches, and is off at whole coordinates."""
    shape = network.types[node.inputs[0]].shape
    if not isinstance(node.op, Interpolate):
        return False
    mode = node.op.coordinates
    resized = [s for s in node.op.samplings(shape) if s.scale != 1]
    off = any(
        s.slack(i, mode) and s.coordinate(i, mode, Fraction(s.out)) % 1 == 0 for s in resized for i in range(s.out)
    )
    one = mode == "pytorch_half_pixel" and any(s.out == 1 for s in resized)
    return off or one or 0 in shape or any(a < 0 for a in node.op.axes)


def _fails_as_a_layer(network: Network, node: Node) -> bool:
    """QAttention takes a scale of 0 for none, DynamicQuantizeLSTM does not clip C(t); both die of an empty batch.

    QMoE leaves out experts with a negative weight.
    """
    if isinstance(node.op, Moe):
        return bool((network.constant_data[node.inputs[2]].array < 0).any())
    if not isinstance(node.op, Attention | Lstm):
        return False
    bug = node.op.scale == 0.0 if isinstance(node.op, Attention) else node.op.clip is not None
    return bug or 0 in network.types[node.inputs[0]].shape


def _stored_weights(backend: Any, network: Network) -> bool:
    """2-bit weights in MatMulNBits where DequantizeLinear was fused, zero points that it is fed, its ORT format,
    blocks of one scale, and blocks that become integer kernels."""
    forms, fuses = set(network.forms), backend.format == "qdq" and backend.opt in ("extended", "all")
    nodes = [n for n in network.nodes if isinstance(n.op, WeightOnlyLinear | Embedding)]
    types = [network.types[n.inputs[isinstance(n.op, WeightOnlyLinear)]].qtype for n in nodes]
    if nodes and backend.format == "qoperator" and {"accuracy=4", "qparams=inputs"} <= forms:
        return True
    if "saved=ort" in forms and any(q.dtype in ("int2", "uint2", "int4", "uint4") for q in types):
        return True
    if backend.format == "qdq" and any(q.block and len(q.scale) == 1 for q in types):
        return True
    if "weight_graph=transposed" in forms and backend.format == "qdq" and backend.opt == "basic":
        return any(q.dtype.endswith("int2") for q in types)  # Transpose is folded into a constant of another type
    if fuses and {"weight_graph=transposed", "constants=inputs"} <= forms and any(q.dtype == "int8" for q in types):
        return True  # a QuantizeLinear is put after Transpose, and says uint8
    reads_real = any(n.inputs[0] not in {i.name for i in network.inputs} for n in nodes)
    return fuses and any(q.dtype.endswith("int2") or (q.block and reads_real) for q in types)


def _known_bug(backend: Any, network: Network) -> bool:
    if isinstance(backend, OnnxReferenceBackend):
        bugs = (
            _pools_out_of_bounds, _channels_of_images, _pads_integers_with_nan, _resizes_by_itself, _transposes_wrongly,
            _gathers_equal_shapes, _pads_by_less_than_nothing,
        )  # fmt: skip
        return any(bug(network, n) for n in network.nodes for bug in bugs)
    if _stored_weights(backend, network):
        return True
    fuses = backend.format == "qdq" and backend.opt in ("extended", "all")
    integer_kernels = backend.format == "qoperator" or fuses
    requantizes_twice = backend.format == "qdq" and backend.opt != "disable" and len(network.nodes) > 1
    for n in (n for n in network.nodes if not isinstance(n.op, WeightOnlyLinear | Embedding)):
        if _infers_fewer_dimensions(network, n):
            return True
        if backend.opt != "disable" and _expands_to_nothing(network, n):
            return True
        if _copies_what_has_a_scale(network, n) or _keeps_aspect_of_axes_from_the_back(network, n):
            return True
        cubic = _resizes_integers_cubically(network, n)
        if _resizes_channels_last(network, n) and (cubic or backend.format == "qoperator"):
            return True
        if (cubic or _rounds_passes(network, n)) and backend.format == "qoperator":
            return True
        if isinstance(n.op, DynamicLayer | LinearInteger | MatMulInteger) and _saturates_pairs(network, n):
            return True  # MatMulInteger is in every form
        if backend.format == "qoperator" and _fails_as_a_layer(network, n):
            return True
        if integer_kernels and (_rounds_reciprocal(n) or _overhangs(network, n) or _saturates_pairs(network, n)):
            return True
        x = network.types[n.inputs[0]]
        if (
            fuses
            and isinstance(n.op, Linear | Attention)
            and len(x.shape) > 2
            and len(n.inputs) > 2
            and x.dtype == "int8"
        ):
            return True  # MatMul and Add become a Gemm whose QuantizeLinear says uint8
    return requantizes_twice  # DoubleQDQPairsRemover invents a scale for two of them


def _shows_known_bug(backend: Any, case: Case) -> bool:
    if isinstance(backend, OnnxReferenceBackend) and _divides_by_zero(case):
        return True
    return _known_bug(backend, case.network)


def _accused(verdict: BackendVerdict) -> str:
    assert verdict.outcome in (Outcome.JUDGED, Outcome.UNSUPPORTED), f"{verdict.outcome}: {verdict.reason}"
    if verdict.outcome is Outcome.UNSUPPORTED:
        assert verdict.reason
    return "; ".join(map(str, verdict.mismatches))


@every_backend
@pytest.mark.parametrize("op", SINGLE_OPS)
def test_one_operator_is_never_accused(op: str, backend: Any) -> None:
    for seed, dtype, pow2 in itertools.product(range(SEEDS), ("uint8", "int8"), (False, True)):
        case = SINGLE_OPS[op](Draw(seed, dtype, pow2=pow2))
        if not _shows_known_bug(backend, case):
            (verdict,) = check(case, [backend]).backends
            assert not _accused(verdict), (seed, dtype, pow2)


@every_backend
@pytest.mark.parametrize("op", NEAR_TIE_OPS)
def test_error_near_ties_stays_within_the_contract(op: str, backend: Any) -> None:
    worst, n_elements = 0.0, 0
    for case in itertools.islice(near_tie_cases(op, seed=7), NEAR_TIES):
        if isinstance(backend.supports(case.network), Supported) and not _shows_known_bug(backend, case):
            (verdict,) = check(case, [backend]).backends
            assert not _accused(verdict)
            worst = max(worst, worst_errors(case, backend).get(op, 0.0))
            n_elements += verdict.counts.total
    print(f"{backend.name} {op}: worst {worst:.2f} u*T of k = {backend.contracts[op].k}, {n_elements} elements"
          if op in backend.contracts else f"{backend.name} {op}: no kernel")  # fmt: skip


@every_backend
def test_a_campaign_finds_nothing_new(backend: Any, tmp_path: Path) -> None:
    """Drawn networks in all their forms, in processes of their own: kernels die of some. The corpus knows which."""
    options = [
        "--max-examples",
        str(DRAWN),
        "--seed",
        "3",
        "--max-nodes",
        "3",
        "--jobs",
        "1",
        "--json",
        "--invalid",
        "0",
    ]
    command = ["run", "-b", backend.name, *options, "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", "from qfuzz.cli import main; main()", *command],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    findings = json.loads(done.stdout)["findings"]
    assert [f["signature"] for f in findings if not f["known"]] == [], done.stderr
    print(f"{backend.name}: {len(findings)} known issues in {DRAWN} drawn networks")


@pytest.mark.parametrize("form", FORMATS)
def test_every_operator_is_said_or_refused(form: str) -> None:
    assert tuple(FORMATS[form]) == tuple(FORMATS["qdq"])
    assert set(FORMATS[form]) == set(OPERATOR_NAMES)
    for opt in ("disable", "basic", "extended", "all"):
        contracts = OnnxRuntimeBackend(form, opt).contracts
        assert {name.partition("?")[0] for name in contracts} <= set(OPERATOR_NAMES)
        assert all(c.source for c in contracts.values())


def _network(
    op: Operator,
    inputs: list[tuple[tuple[int, ...], Element]],
    constants: list[tuple[Element, np.ndarray[Any, Any]]],
    out: Element,
) -> Network:
    fed = tuple(Input(f"x{i}", TensorType(s, e)) for i, (s, e) in enumerate(inputs))
    kept = tuple(Constant(f"c{i}", TensorType(a.shape, e), Tensor(a)) for i, (e, a) in enumerate(constants))
    names = (*(v.name for v in fed), *(v.name for v in kept))
    return Network(fed, kept, (Node("y", op, names, out),), ("y",))


def _filled(network: Network, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    return Case(
        network,
        tuple(Tensor(rng.integers(0, 100, i.type.shape).astype(i.type.dtype)) for i in network.inputs),
    )


U8, S8 = QType.per_tensor("uint8", 0.5, 3), QType.per_tensor("int8", float32(0.3), -5)
U8_RELU = QType.per_tensor("uint8", float32(0.7), 0)


def _contraction(op: Operator, x: QType, w: QType, bias: str, y: QType, rank: int = 2) -> Network:
    rng = np.random.default_rng(1)
    conv = not isinstance(op, Linear)
    weight = rng.integers(0, 100, (4, 2, 3) if conv else (4, 6)).astype(w.dtype)
    constants: list[tuple[Element, np.ndarray[Any, Any]]] = [(w, weight)]
    if bias == "int32":
        constants.append(("int32", rng.integers(-500, 500, 4).astype(np.int32)))
    elif bias == "float32":
        constants.append(("float32", rng.normal(0, 9, 4).astype(np.float32)))
    shape = (2, 2, 7) if conv else (3, 6) if rank == 2 else (2, 3, 6)
    return _network(op, [(shape, x)], constants, y)


W_TENSOR = QType.per_tensor("int8", float32(0.1), 0)
W_UNSIGNED = QType.per_tensor("uint8", float32(0.1), 130)
W_CHANNELS = QType("int8", tuple(float32(s) for s in (0.1, 0.2, 0.3, 0.5)), (0, 0, 0, 0), 0)
W_ZERO_POINTS = QType("int8", W_CHANNELS.scale, (0, 1, 2, 3), 0)


@every_backend
@pytest.mark.parametrize("bias", ["", "int32", "float32"])
@pytest.mark.parametrize("weight", [W_TENSOR, W_UNSIGNED, W_CHANNELS, W_ZERO_POINTS], ids=["t", "u", "c", "z"])
@pytest.mark.parametrize("op", [unit_conv(1), Linear(), Linear(relu=True)], ids=["conv", "linear", "linear_relu"])
def test_contraction_forms(op: Operator, weight: QType, bias: str, backend: Any) -> None:
    for x, y, rank in itertools.product((U8, S8), (U8, S8, U8_RELU), (2, 3)):
        network = _contraction(op, x, weight, bias, y, rank)
        if not _known_bug(backend, network):
            (verdict,) = check(_filled(network), [backend]).backends
            assert not _accused(verdict), (x, y, rank)


def test_documented_refusals_are_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of the table is no finding; any other is the framework's own words in a finding."""

    class Refuses:
        def __init__(self, *_: object) -> None:
            raise onnx_executor.Refusal("load", RuntimeError(message))

    monkeypatch.setattr(onnx_executor, "Session", Refuses)
    network = _contraction(unit_conv(1), U8, W_TENSOR, "", U8)
    for known in REFUSALS:
        message = f"QLinearConv : {known.message}. Symmetric types have that."
        with pytest.raises(Unsupported, match=known.reason):
            OnnxRuntimeBackend().compile(network)
    message = "no memory"
    with pytest.raises(Rejected, match="no memory"):
        OnnxRuntimeBackend().compile(network)


@pytest.mark.parametrize("zero_point", [-128, 0, 5])
def test_qoperator_relu_is_legal_only_where_saturation_does_it(zero_point: int) -> None:
    network = _contraction(Linear(relu=True), S8, W_TENSOR, "", QType.per_tensor("int8", 1.0, zero_point))
    supported = isinstance(OnnxRuntimeBackend().supports(network), Supported)
    assert supported == (zero_point == -128)


@pytest.mark.parametrize("op", [Minimum(), Maximum()])
def test_extremes_of_stored_integers_are_legal_of_one_type_only(op: Operator) -> None:
    other = QType.per_tensor("uint8", 0.25, 3)
    for types in itertools.product((U8, other), repeat=3):
        network = _network(op, [((2, 3), types[0]), ((3,), types[1])], [], types[2])
        supported = isinstance(OnnxRuntimeBackend().supports(network), Supported)
        assert supported == (len(set(types)) == 1)
        assert isinstance(OnnxRuntimeBackend("qdq").supports(network), Supported)


@pytest.mark.parametrize("is_constant", [False, True])
def test_where_becomes_an_integer_kernel_where_all_have_one_dtype(is_constant: bool, tmp_path: Path) -> None:
    """Otherwise the contract of fused kernels was never held against one."""
    condition = np.array([True, False])
    for x, y, out in itertools.product((U8, U8_RELU, S8), repeat=3):
        inputs: list[tuple[tuple[int, ...], Element]] = [((3, 2), x), ((2,), y)]
        kept: list[tuple[Element, np.ndarray[Any, Any]]] = [("bool", condition)] if is_constant else []
        network = _network(Where(), inputs if is_constant else [*inputs, ((2,), "bool")], kept, out)
        model = serialize(network, lower(network, "qdq"))
        onnx_executor.Session(model, "extended", save_to=str(tmp_path / "fused.onnx"))
        fused = [n.op_type for n in onnx.load(tmp_path / "fused.onnx").graph.node] == ["QLinearWhere"]
        assert fused == (x.dtype == y.dtype == out.dtype)
        assert isinstance(OnnxRuntimeBackend().supports(network), Supported) == fused


# The bugs themselves: when one is gone, its condition above goes, too.


def _show(backend: Any, network: Network, *arrays: np.ndarray[Any, Any]) -> BackendVerdict:
    case = Case(network, tuple(Tensor(a) for a in arrays))
    return check(case, [backend]).backends[0]


def _one_bug(name: str) -> tuple[Any, Network, list[np.ndarray[Any, Any]]]:
    u8 = QType.per_tensor("uint8", 1.0, 0)
    shifted = QType.per_tensor("uint8", 1.0, 1)
    half = QType.per_tensor("uint8", 0.5, 0)
    zero = np.zeros(1, dtype=np.uint8)
    match name:
        case "softmax":
            y = QType.per_tensor("uint8", 1.5, 0)
            return OnnxRuntimeBackend(), _network(Softmax(axis=0), [((1,), u8)], [], y), [zero]
        case "avg_pool":
            pool = AvgPool(kernel=(2,), strides=(3,), padding=(0, 0), ceil_mode=True)
            x = np.full((1, 1, 4), 9, dtype=np.uint8)
            return OnnxRuntimeBackend(), _network(pool, [((1, 1, 4), u8)], [], u8), [x]
        case "double_qdq":
            nodes = (
                Node("a", Transpose(perm=(1, 0)), ("x",), u8),
                Node("b", Transpose(perm=(1, 0)), ("a",), shifted),
                Node("y", Relu(), ("b",), u8),
            )
            network = Network((Input("x", TensorType((1, 2), half)),), (), nodes, ("y",))
            return OnnxRuntimeBackend("qdq", "basic"), network, [np.array([[1, 0]], dtype=np.uint8)]
        case "linear":
            s8 = QType.per_tensor("int8", 1.0, 0)
            constants: Any = [(s8, np.zeros((1, 1), np.int8)), ("float32", np.ones(1, np.float32))]
            network = _network(Linear(), [((1, 1, 1), s8)], constants, s8)
            return OnnxRuntimeBackend("qdq"), network, [np.zeros((1, 1, 1), dtype=np.int8)]
        case "expand":
            network = _network(Expand(shape=(0,)), [((1,), u8)], [], u8)
            return OnnxRuntimeBackend("qdq", "basic"), network, [zero]
        case "resize":
            op = Interpolate(sizes=(1, 5, 1, 1), mode="linear")
            x = np.array([41, 240], dtype=np.uint8).reshape(1, 2, 1, 1)
            return OnnxRuntimeBackend(), _network(op, [(x.shape, u8)], [], u8), [x]
        case "sigmoid":
            x_type = QType.per_tensor("int8", 1.0, 20)
            network = _network(Sigmoid(), [((1,), x_type)], [], QType.per_tensor("int8", 2.0**-30, 0))
            return OnnxRuntimeBackend(), network, [np.zeros(1, dtype=np.int8)]
        case "onnx-reference div":
            network = _network(Div(), [((1,), u8), ((1,), u8)], [], u8)
            return OnnxReferenceBackend(), network, [np.ones(1, dtype=np.uint8), zero]
        case _:
            network = _network(Quantize(), [((1,), "float32")], [], QType.per_tensor("uint8", 2.0**-32, 0))
            return OnnxReferenceBackend(), network, [np.ones(1, dtype=np.float32)]


KNOWN_BUGS = (
    "softmax", "avg_pool", "double_qdq", "linear", "expand", "resize", "sigmoid", "onnx-reference quantize",
    "onnx-reference div",
)  # fmt: skip


@pytest.mark.parametrize("name", KNOWN_BUGS)
def test_known_bugs_are_found(name: str) -> None:
    backend, network, arrays = _one_bug(name)
    verdict = _show(backend, network, *arrays)
    if not verdict.is_finding:
        pytest.skip(f"{name}: gone from {backend.describe()['framework']} {backend.describe()['version']}")
    assert verdict.outcome is (Outcome.REJECTED if name == "linear" else Outcome.JUDGED)


# The seam.


def test_names_are_canonical() -> None:
    assert [b.name for b in RUNTIMES] == [
        "onnxruntime?opt=disable",
        "onnxruntime?opt=basic",
        "onnxruntime?opt=extended",
        "onnxruntime",
        "onnxruntime?format=qdq&opt=disable",
        "onnxruntime?format=qdq&opt=basic",
        "onnxruntime?format=qdq&opt=extended",
        "onnxruntime?format=qdq&opt=all",
    ]
    assert OnnxRuntimeBackend(threads="2").name == "onnxruntime?threads=2"
    assert [b.fuses for b in RUNTIMES] == [False, True, True, True] * 2


@pytest.mark.parametrize("options", [{"format": "qop"}, {"opt": "most"}, {"threads": "0"}, {"threads": "many"}])
def test_bad_options_are_named(options: dict[str, str]) -> None:
    with pytest.raises(InvalidCase, match=next(iter(options))):
        OnnxRuntimeBackend(**options)


@every_backend
def test_describes_itself_in_strings(backend: Any) -> None:
    described = backend.describe()
    assert described["version"] and described["opset"] == str(OPSET) and "cpu_flags" in described
    assert all(isinstance(v, str) for v in described.values())


@every_backend
def test_taps_are_further_outputs(backend: Any) -> None:
    nodes = (Node("a", Relu(), ("x",), S8), Node("b", Transpose(perm=(1, 0)), ("a",), S8))
    network = Network((Input("x", TensorType((2, 3), S8)),), (), nodes, ("b",))
    x = np.arange(-20, -8, 2, dtype=np.int8).reshape(2, 3)
    values = backend.compile(network, ["a"]).run({"x": x}, ["a"])
    assert np.array_equal(values["a"], np.maximum(x, -5)) and np.array_equal(values["b"], values["a"].T)
    assert set(backend.compile(network).run({"x": x})) == {"b"}


@pytest.mark.parametrize("form", FORMATS)
def test_models_are_valid_and_the_same_every_time(form: str) -> None:
    for case in itertools.islice(cases_of(5, 0, max_nodes=3), 60):
        try:
            model = serialize(case.network, lower(case.network, form))
        except Unsupported:
            continue
        assert model == serialize(case.network, lower(case.network, form))
        checked = onnx.load_model_from_string(model)
        if not any(n.domain for n in checked.graph.node):
            onnx.checker.check_model(checked, full_check=True)


def test_a_bias_is_dequantized_with_the_product_of_the_scales() -> None:
    graph = lower_graph(_contraction(Linear(), U8, W_CHANNELS, "int32", U8), FORMATS["qdq"])
    (dequantize,) = [n for n in graph.node if n.output[0] == "y/bias"]
    (scale,) = [i for i in graph.initializer if i.name == dequantize.input[1]]
    expected = np.array(W_CHANNELS.scale, dtype=np.float32) * np.float32(U8.scale[0])
    assert np.array_equal(onnx.numpy_helper.to_array(scale), expected)


@every_backend
def test_script_gives_what_the_backend_gives(backend: Any, tmp_path: Path) -> None:
    network = _network(MaxPool(kernel=(2,), strides=(1,), padding=(0, 0), dilations=(1,)), [((1, 2, 4), U8)], [], U8)
    case = _filled(network)
    assert isinstance(backend, Scriptable)
    runtime: Any = backend
    script = backend.script(network, {"x0": case.inputs[0].array})
    for name, content in script.files.items():
        (tmp_path / name).write_bytes(content)
    lines = ["from pathlib import Path", "HERE = Path(__file__).parent", *script.lines, "print(outputs['y'].tolist())"]
    (tmp_path / "run.py").write_text("\n".join(lines))
    printed = subprocess.run([sys.executable, tmp_path / "run.py"], check=True, capture_output=True, text=True).stdout
    assert eval(printed) == runtime.compile(network).run({"x0": case.inputs[0].array})["y"].tolist()


@pytest.mark.parametrize("executor", [onnx_executor, onnx_reference_executor], ids=["runtime", "reference"])
def test_an_executor_is_one_file_without_qfuzz(executor: Any) -> None:
    assert "qfuzz" not in Path(executor.__file__).read_text()


def test_a_broken_model_is_a_refusal() -> None:
    with pytest.raises(onnx_executor.Refusal, match="load"):
        onnx_executor.Session(b"no model")


def test_requantize_has_no_integer_kernel() -> None:
    network = _network(Requantize(), [((3,), U8)], [], S8)
    assert isinstance(OnnxRuntimeBackend().supports(network), NotSupported)
    assert isinstance(OnnxRuntimeBackend("qdq").supports(network), Supported)


def test_equal_bytes_of_other_types_are_other_constants() -> None:
    """NumPy knows small types by characters, and two of them by the same one."""
    x = QType.per_tensor("uint8", 1.0, 0)
    builder = Builder(Network((Input("x", TensorType((1,), x)),), (), (Node("y", Relu(), ("x",), x),), ("y",)))
    made = {builder.shared(np.zeros((), dtype)) for dtype in DTYPES.values()}
    assert len(made) == len({np.dtype(dtype) for dtype in DTYPES.values()})

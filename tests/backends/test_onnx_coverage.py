"""The matrix of the ONNX side against the installed runtime: nothing is left out, every claim is true."""

import itertools
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qfuzz.backends.onnx_absent import ABSENT
from qfuzz.backends.onnx_coverage import COVERED, Covered, Row, rows, summary
from qfuzz.backends.onnx_kernels import MICROSOFT, NARROW, ONNX, Key, OperatorKernels, Runtime, ask_runtime
from qfuzz.backends.onnx_scope import NO_SUCH_KERNEL, NOT_YET, OUT_OF_SCOPE, SCALES_OF_OTHERS
from qfuzz.backends.statuses import counts
from qfuzz.ir.errors import BackendMissing, Unsupported
from qfuzz.ops import OPERATOR_NAMES
from qfuzz.strategies import cases_of

onnx = pytest.importorskip("onnx", reason="onnx is not installed: models are written with it")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: it tells which operators there are")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402  after the skips

from qfuzz.backends import onnx_executor  # noqa: E402
from qfuzz.backends.onnx_dialect import FORMATS, IR_VERSION, OPSET, lower, serialize  # noqa: E402
from qfuzz.backends.onnx_emitted import emitted  # noqa: E402

CONSTRAINTS = Path(__file__).resolve().parent.parent.parent / "scripts" / "constraints.txt"
PINNED = re.findall(r"^onnxruntime==(\S+)", CONSTRAINTS.read_text(encoding="utf-8"), flags=re.MULTILINE)

FUNCTIONS = {(ONNX, "HardSwish")}
"""Covered, and without a CPU kernel of their own: the runtime runs the graph of others that their schema gives."""

NETWORKS = 200
"""How many drawn networks are asked for what the optimizer makes of them, before it is said to make nothing."""


@cache
def runtime() -> Runtime:
    return ask_runtime()


def operators() -> Mapping[Key, OperatorKernels]:
    return runtime().by_key()


# Nothing is left out.


def test_every_operator_of_the_runtime_is_in_a_table() -> None:
    new = {r.key: r.kernel_types for r in rows(runtime()) if r.status == "unlisted"}
    assert not new, (
        f"onnxruntime {runtime().version} has CPU kernels, and these types, for {new}: "
        "say what covers each in qfuzz/backends/onnx_coverage.py, or in qfuzz/backends/onnx_scope.py why nothing does"
    )
    assert len(rows(runtime())) > 150, "the runtime tells of nothing"


def test_a_new_operator_would_be_noticed() -> None:
    for types in (("tensor(uint4)",), ("tensor(float)", "seq(tensor(int16))"), ("tensor(float8e5m2)",)):
        for kernel_types, schema_types in ((types, types), (("tensor(float)",), types)):
            new = OperatorKernels(MICROSOFT, "QLinearNew", True, kernel_types, schema_types)
            (row,) = (r for r in rows(Runtime("9", (*runtime().operators, new))) if r.status == "unlisted")
            assert row.key == new.key
    for ignored in (
        OperatorKernels(MICROSOFT, "New", True, ("tensor(float)",), ("tensor(float)",)),
        OperatorKernels(MICROSOFT, "New", False, (), ("tensor(uint8)",)),
        OperatorKernels("com.example", "New", True, ("tensor(uint8)",), ("tensor(uint8)",)),
    ):
        assert rows(Runtime("9", (*runtime().operators, ignored))) == rows(runtime())


def test_each_operator_is_in_one_table() -> None:
    tables: Sequence[set[Key]] = [set(COVERED), set(NOT_YET), set(OUT_OF_SCOPE)]
    assert sum(map(len, tables)) == len(set().union(*tables))
    assert all(reason for reason in (*NOT_YET.values(), *OUT_OF_SCOPE.values()))


def test_no_entry_is_of_the_past() -> None:
    if [runtime().version] != PINNED:
        pytest.skip(f"onnxruntime {runtime().version} is not the pinned {PINNED}: it may lack what that has")
    gone = [k for k in (*COVERED, *NOT_YET, *OUT_OF_SCOPE) if k not in operators()]
    assert not gone, f"onnxruntime {runtime().version} has no such operators; take them out of the tables"
    without = {k for k in (*COVERED, *NOT_YET, *OUT_OF_SCOPE) if not operators()[k].has_kernel}
    assert without == FUNCTIONS


IN_QDQ_FORM = """
    Conv ConvTranspose Gemm MatMul Add Sub Mul Div Relu Clip LeakyRelu Sigmoid Tanh Elu HardSwish Gelu Softmax MaxPool
    AveragePool GlobalAveragePool Resize Concat Split Slice Pad Reshape Transpose Squeeze Unsqueeze Expand Gather
    DepthToSpace SpaceToDepth ReduceMean Min Max Where ArgMax LayerNormalization InstanceNormalization
""".split()  # noqa: SIM905
"""Float operators that quantization tools put between DequantizeLinear and QuantizeLinear."""


@pytest.mark.parametrize("name", IN_QDQ_FORM)
def test_float_operators_of_quantized_models_are_covered_in_qdq_form(name: str) -> None:
    assert COVERED[ONNX, name].qdq


# What is out of scope has no scales, and the runtime does not rewrite it in QDQ form.


def test_a_reason_about_kernels_is_true() -> None:
    for key, reason in OUT_OF_SCOPE.items():
        if key in operators() and operators()[key].has_kernel:
            assert (reason == NO_SUCH_KERNEL) == (not operators()[key].stored), (key, operators()[key].stored)


def test_nothing_with_scales_or_zero_points_is_out_of_scope() -> None:
    has_scales = re.compile(r"zero_points?$|absmax|(?<!^)_scales?$")
    found = set()
    for schema in onnx_executor.ort_state.get_all_operator_schema():
        if any(has_scales.search(p.name.lower()) for p in schema.inputs):
            found.add((schema.domain, schema.name))
    assert found >= {(ONNX, "QuantizeLinear"), (MICROSOFT, "GroupQueryAttention"), (MICROSOFT, "MatMulBnb4")}
    assert found & set(OUT_OF_SCOPE) <= set(SCALES_OF_OTHERS)


SAYS: Mapping[str, str] = {
    "GatherPacked": "block-packed embedding table",
    "GroupQueryAttention": "quantization for the KV cache",
    "MatMulBnb4": "FP4 or NF4 data type",
    "MatMulFpQ4": "pre-packed and quantized int4 data blob",
}
"""Of operators with other scales than those of quantized tensors: words of their schemas that say so."""


@pytest.mark.parametrize("key", SCALES_OF_OTHERS, ids=str)
def test_scales_that_are_out_of_scope_are_what_the_schema_says(key: Key) -> None:
    texts = [s.doc for s in onnx_executor.ort_state.get_all_operator_schema() if (s.domain, s.name) == key]
    if not texts:
        pytest.skip(f"onnxruntime {runtime().version} has no {key[1]}")
    assert any(SAYS[key[1]] in " ".join(t.split()) for t in texts)
    assert OUT_OF_SCOPE[key].startswith("has scales ")


def test_only_named_operators_have_scales_and_are_out_of_scope() -> None:
    assert {k for k, why in OUT_OF_SCOPE.items() if not why.startswith(("has no scales", "control flow"))} == set(
        SCALES_OF_OTHERS
    )


# Every claim is true.


def _lowered(op: str, form: str) -> Iterator[bytes]:
    for case in cases_of(0, 0, ops=(op,), max_nodes=1):
        try:
            yield serialize(case.network, lower(case.network, form))
        except Unsupported:
            continue


@cache
def written(op: str, form: str) -> frozenset[Key]:
    """Operators of ONNX that drawn one-node cases of `op` are lowered to."""
    return frozenset(key for model in _lowered(op, form) for key in emitted(model))


def is_made(key: Key, ops: tuple[str, ...]) -> bool:
    """Whether the runtime, at opt=all, puts this operator into small networks of `ops`."""
    networks = (case.network for shard in range(9) for case in cases_of(0, shard, ops=ops, max_nodes=4))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        for network in islice(networks, NETWORKS):
            for form in FORMATS:
                try:
                    onnx_executor.Session(serialize(network, lower(network, form)), "all", save_to=str(path))
                except (Unsupported, onnx_executor.Refusal):
                    continue
                if key in emitted(path.read_bytes()):
                    return True
    return False


def untrue(key: Key, claim: Covered) -> list[str]:
    """What of a claim is not so."""
    wrong = [f"there is no operator {op}" for op in claim.operators if op not in OPERATOR_NAMES]
    if not claim.operators:
        wrong.append("it names no operator")
    if wrong:
        return wrong
    for form, ops in (("qoperator", claim.qoperator), ("qdq", claim.qdq)):
        wrong += [f"{form} of {op} has {sorted(written(op, form))}" for op in ops if key not in written(op, form)]
    if claim.optimized and not is_made(key, claim.optimized):
        wrong.append(f"opt=all does not make it of networks of {' and '.join(claim.optimized)}")
    return wrong


@pytest.mark.parametrize("key", COVERED, ids=str)
def test_what_is_said_to_be_covered_is_in_drawn_cases(key: Key) -> None:
    wrong = untrue(key, COVERED[key])
    assert not wrong, f"{key}: {'; '.join(wrong)}"


def test_a_false_claim_would_be_noticed() -> None:
    assert untrue((ONNX, "QLinearConv"), Covered(qoperator=("linear",)))
    assert untrue((ONNX, "QLinearConv"), Covered(qdq=("conv",)))
    assert untrue((ONNX, "Conv"), Covered(qdq=("convolution",)))
    assert untrue((MICROSOFT, "QLinearConv"), Covered(optimized=("max_pool",)))
    assert untrue((ONNX, "Conv"), Covered())


def test_every_operator_of_qfuzz_covers_one_of_onnx() -> None:
    covering = {op for c in COVERED.values() for op in c.operators}
    assert not covering & set(ABSENT)
    idle = set(OPERATOR_NAMES) - covering - set(ABSENT)
    assert not idle, (
        f"say in qfuzz/backends/onnx_coverage.py what {sorted(idle)} cover, or in onnx_absent.py why they do not"
    )


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("op", ["conv", "add", "concat", "max_pool", "quantize"])
def test_types_that_reach_a_node_are_those_of_the_network(op: str, form: str) -> None:
    narrow = 0
    for case in islice(cases_of(1, 0, ops=(op,), max_nodes=1), 60):
        try:
            model = emitted(serialize(case.network, lower(case.network, form)))
        except Unsupported:
            continue
        # At the boundary, Cast tells types that the runtime takes no arrays of in wider ones.
        reached = set().union(*(types for key, types in model.items() if key != (ONNX, "Cast")))
        # ONNX calls float8 types what ml_dtypes calls them, without the underscore: float8e4m3fn.
        dtypes = {t.dtype.replace("float8_", "float8") for t in case.network.types.values()}
        assert reached == dtypes & set(NARROW)
        narrow += bool(reached)
    assert narrow > 10


# What the runtime rewrites in QDQ form is in scope: asked of the runtime, operator by operator.

X = None
"""An activation, in a recipe."""

RECIPES: Mapping[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "ArgMax": ((X,), {}),
    "ArgMin": ((X,), {}),
    "AveragePool": ((X,), {"kernel_shape": [2, 2]}),
    "Compress": ((X, [True, False]), {"axis": 0}),
    "Concat": ((X, X), {"axis": 1}),
    "CumSum": ((X, 1), {}),
    "DepthToSpace": ((X,), {"blocksize": 2}),
    "Einsum": ((X,), {"equation": "abcd->abdc"}),
    "Expand": ((X, [3, 2, 4, 4, 4]), {}),
    "Gather": ((X, [1]), {}),
    "GatherElements": ((X, [[[[0]]]]), {}),
    "GatherND": ((X, [[1]]), {}),
    "GridSample": ((X, np.zeros((2, 3, 3, 2), np.float32)), {}),
    "LRN": ((X,), {"size": 1}),
    "LpPool": ((X,), {"kernel_shape": [2, 2]}),
    "MaxPool": ((X,), {"kernel_shape": [2, 2]}),
    "Pad": ((X, [0, 0, 0, 0, 0, 0, 1, 1]), {}),
    "ReduceMax": ((X, [1]), {}),
    "ReduceMean": ((X, [1]), {}),
    "ReduceMin": ((X, [1]), {}),
    "ReduceSum": ((X, [1]), {}),
    "Reshape": ((X, [2, 64]), {}),
    "Resize": ((X, "", np.array([1, 1, 2, 2], np.float32)), {}),
    "ReverseSequence": ((X, [1, 2, 1, 2]), {}),
    "ScatterElements": ((X, [[[[0]]]], np.ones((1, 1, 1, 1), np.float32)), {}),
    "ScatterND": ((X, [[1]], np.ones((1, 4, 4, 4), np.float32)), {}),
    "Slice": ((X, [0], [1]), {}),
    "SpaceToDepth": ((X,), {"blocksize": 2}),
    "Split": ((X,), {"num_outputs": 1}),
    "Tile": ((X, [1, 2, 1, 1]), {}),
    "TopK": ((X, [2]), {}),
    "UnfoldTensor": ((X,), {"dim": 1, "size": 2, "step": 1}),
    "Unsqueeze": ((X, [0]), {}),
    "Where": (([[True], [False], [True], [True]], X, X), {}),
}
"""Operator to its inputs (activations, constants, or left out) and attributes. Others read activations only."""

REMOVED = {(ONNX, "Identity"), (ONNX, "Dropout")}
"""What the optimizer takes out of any graph; what is left are two nodes that undo each other, which go, too."""


def _schemas() -> Mapping[Key, Any]:
    newest: dict[Key, Any] = {}
    for s in onnx_executor.ort_state.get_all_operator_schema():
        known = newest.get((s.domain, s.name))
        if not s.deprecated and s.since_version <= OPSET and (known is None or s.since_version > known.since_version):
            newest[s.domain, s.name] = s
    return {k: newest[k] for k, o in operators().items() if o.has_kernel and k in newest}


def _activations(schema: Any) -> int:
    """How many inputs it needs that are float32; 0 where it needs others."""
    types = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    optional = onnx_executor.ort_state.schemadef.OpSchema.FormalParameterOption.Optional
    needed = [p for p in schema.inputs if p.option != optional]
    return len(needed) if all("tensor(float)" in types.get(p.typeStr, [p.typeStr]) for p in needed) else 0


def _rewritten(
    key: Key, inputs: Sequence[Any], attributes: Mapping[str, Any], form: tuple[bool, bool, tuple[int, ...]], path: Path
) -> bool | None:
    """Whether the optimizer changes the operator between DequantizeLinear and QuantizeLinear; None: it is refused."""
    uint8, equal, shape = form
    dtype = TensorProto.UINT8 if uint8 else TensorProto.INT8
    zero_point = np.uint8(128) if uint8 else np.int8(0)
    parameters = {"zero_point": zero_point, "scale": np.float32(0.5), "scale_y": np.float32(0.5 if equal else 0.25)}
    initializers = [numpy_helper.from_array(np.array(v), name) for name, v in parameters.items()]
    fed, nodes, names = [], [], []
    for i, value in enumerate(inputs):
        if value is X:
            fed.append(helper.make_tensor_value_info(f"x{i}", dtype, shape))
            nodes.append(helper.make_node("DequantizeLinear", [f"x{i}", "scale", "zero_point"], [f"v{i}"]))
        elif not isinstance(value, str):
            initializers.append(numpy_helper.from_array(np.array(value), f"v{i}"))
        names.append(value if isinstance(value, str) else f"v{i}")
    outputs = ["f", "indices"] if key[1] == "TopK" else ["f"]
    nodes.append(helper.make_node(key[1], names, outputs, domain=key[0], **attributes))
    if key[1].startswith("Arg"):
        output = helper.make_tensor_value_info("f", TensorProto.INT64, None)
    else:
        nodes.append(helper.make_node("QuantizeLinear", ["f", "scale_y", "zero_point"], ["y"]))
        output = helper.make_tensor_value_info("y", dtype, None)
    opsets = [helper.make_opsetid(ONNX, OPSET), helper.make_opsetid(MICROSOFT, 1)]
    graph = helper.make_graph(nodes, "g", fed, [output], initializers)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    try:
        onnx_executor.Session(model.SerializeToString(), "all", save_to=str(path))
    except onnx_executor.Refusal:
        return None
    return [n.op_type for n in onnx.load(path).graph.node] != [n.op_type for n in nodes]


def test_what_the_runtime_rewrites_in_qdq_form_is_in_scope(tmp_path: Path) -> None:
    forms = list(itertools.product((True, False), (True, False), ((2, 4, 4, 4), (4, 4))))
    answers: dict[bool | None, set[Key]] = {True: set(), False: set(), None: set()}
    for key, schema in _schemas().items():
        inputs, attributes = RECIPES.get(key[1], ((X,) * _activations(schema), {}))
        told = {_rewritten(key, inputs, attributes, form, tmp_path / "model.onnx") for form in forms if inputs}
        answers[True if True in told else False if False in told else None].add(key)
    rewritten, kept, refused = answers[True], answers[False], answers[None]
    print(f"{len(rewritten)} rewritten, {len(kept)} kept, {len(refused)} not asked: {sorted(refused)}")
    assert rewritten >= {(ONNX, n) for n in ("Conv", "Gemm", "Add", "Where", "Tile", "ReduceMax", "ArgMax", "Resize")}
    missing = rewritten - REMOVED - set(COVERED) - set(NOT_YET)
    assert not missing, (
        f"the optimizer rewrites {sorted(missing)} between DequantizeLinear and QuantizeLinear: say what covers them "
        "in qfuzz/backends/onnx_coverage.py, or in NOT_YET of qfuzz/backends/onnx_scope.py what they have"
    )
    assert kept >= {(ONNX, n) for n in ("Compress", "GatherND", "ReverseSequence", "ScatterElements", "ArgMin", "TopK")}


# How it is said.


def test_the_sentence_has_the_counts() -> None:
    found = rows(runtime())
    n = counts(found)
    said = [int(w) for w in re.findall(r"(?<![\d.])\d+(?= (?:operators|are))", summary(runtime()))]
    assert said == [len(found), *(n[s] for s in ("covered", "not yet", "out of scope", "unlisted") if n[s])]
    assert sum(n.values()) == len(found)
    assert not any(r.status == "covered" and (r.reason or not r.covered.operators) for r in found)
    assert all(r.reason for r in found if r.status != "covered")


def test_types_of_kernels_on_raw_integers_are_not_in_question() -> None:
    by_key: Mapping[Key, Row] = {r.key: r for r in rows(runtime())}
    assert by_key[ONNX, "Add"].kernel_types == ()
    assert set(by_key[ONNX, "QLinearConv"].kernel_types) == {"int8", "uint8"}
    assert set(by_key[ONNX, "DequantizeLinear"].kernel_types) >= {"int4", "uint4", "int8", "uint8", "int16", "uint16"}


def test_a_runtime_that_cannot_be_imported_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "onnxruntime"
    broken.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    for text in ("raise OSError('libx.so: no such file')", "import os; os.abort()", "print('[]')\nkernels = 3"):
        (broken / "__init__.py").write_text(text, encoding="utf-8")
        with pytest.raises(BackendMissing, match=r"^onnxruntime tells nothing of its kernels: [^\n]+$"):
            ask_runtime()
    with pytest.raises(BackendMissing, match=r"^onnxruntime tells nothing of its kernels: [^\n]+$"):
        ask_runtime(str(tmp_path / "python"))

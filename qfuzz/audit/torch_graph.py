"""A PT2E-converted graph as layers: what stands between dequantizing and quantizing is one operator on integers.

The graph is interpreted node by node. A float32 value is known as dequantized integers, or as a chain of operators that
began with such; where a chain is quantized, it has become a layer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import torch
from msgspec.structs import replace as replaced

from qfuzz.audit.layer import Captured
from qfuzz.audit.torch_decomposed import FLOAT_READINGS
from qfuzz.audit.torch_folded import NEVER, SEVERAL, Chain, alone, folded, uncovered
from qfuzz.audit.torch_trace import PLUMBING, Call, Floats, Trace, tensors_in
from qfuzz.audit.torch_values import STORAGE, Value, integers_of, layout_of, value_of
from qfuzz.ir.qtype import QType, float32
from qfuzz.ops.quantization import Dequantize, Quantize, Requantize

SPACE = "quantized_decomposed"
_SAME_ORDER = frozenset(
    f"aten::{op}"
    for op in (
        *("view", "_unsafe_view", "reshape", "flatten", "squeeze", "unsqueeze"),
        *("contiguous", "clone", "detach", "alias", "dropout"),
    )
)
"""Operators that keep every element, in row-major order."""
_OTHER_ORDER = frozenset(f"aten::{op}" for op in ("permute", "transpose", "t", "slice", "select"))
"""Operators that pick or reorder elements."""
_CLAMPS: dict[str, tuple[Any, Any]] = {
    "aten::hardtanh": ("min_val", "max_val"),
    "aten::clamp": ("min", "max"),
    "aten::relu6": (0.0, 6.0),
}
"""Their bounds: numbers, or the names of arguments that hold them."""


@dataclass(frozen=True)
class _Dequantized:
    """A float32 value that stands for `stored` integers; `moves` are the operators that moved them since."""

    stored: Any
    qtype: QType
    moves: tuple[str, ...] = ()

    @property
    def value(self) -> Value:
        return Value(integers_of(self.stored), self.qtype, layout=layout_of(self.stored))


_Fact: TypeAlias = _Dequantized | Chain


def is_decomposed(module: Any) -> bool:
    """Whether `module` is a graph with quantizing and dequantizing calls of its own."""
    return isinstance(module, torch.fx.GraphModule) and any(
        isinstance(n.target, torch._ops.OpOverload) and n.target.namespace == SPACE for n in module.graph.nodes
    )


class GraphReader(torch.fx.Interpreter):  # type: ignore[misc]  # torch is seen as Any
    """Runs a graph, and adds to `trace.events` functions that give its layers."""

    def __init__(self, module: Any, trace: Trace) -> None:
        super().__init__(module)
        self._trace = trace
        self._prefix = ""
        self._facts: dict[Any, _Fact] = {}
        self._used: set[Any] = set()  # chains that others continue
        self._out: set[Any] = set()  # dequantized values that leave

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph, in place of the module's own ``forward``."""
        self._prefix = self._trace.module
        self._facts, self._used, self._out = {}, set(), set()
        return self.run(*args, *kwargs.values())

    def run_node(self, n: Any) -> Any:
        """Run one node, and account for it."""
        before = self._trace.where, self._trace.plain
        ours = n.op == "call_function" and isinstance(n.target, torch._ops.OpOverload)
        self._trace.where, self._trace.plain = (self._name(n), False) if ours else ("", True)
        try:
            out = super().run_node(n)
        finally:
            self._trace.where, self._trace.plain = before
        with self._trace.paused():
            if ours:
                self._read(n, out)
            elif n.op == "call_function" and n.target.__name__ == "getitem" and n.args[0] in self._facts:
                self._know(n, self._facts[n.args[0]], n.args[0])  # of several results; the first one is the value
            else:
                self._let_out(n)
            for gone in self.user_to_last_uses.get(n, ()):
                self._forget(gone)
        return out

    def _name(self, n: Any) -> str:
        """The module that the node comes from, with the operator where that module is the user's own."""
        stack = list((n.meta.get("nn_module_stack") or {}).values())
        path, kind = stack[-1] if stack else ("", "")
        path = str(path).removeprefix("L__self__").removeprefix("L['self']").removeprefix(".")
        kind = kind if isinstance(kind, str) else f"{getattr(kind, '__module__', '')}."
        own = path if path and kind.startswith("torch.") else ".".join(p for p in (path, n.name) if p)
        return ".".join(p for p in (self._prefix, own) if p)

    def _add(self, event: Callable[[], Iterator[Captured]] | Floats) -> None:
        self._trace.events.append(event)

    def _know(self, n: Any, fact: _Fact, *sources: Any) -> None:
        self._facts[n] = fact
        self._used.update(sources)

    def _arguments(self, n: Any) -> dict[str, Any]:
        """Arguments by the schema's names; nodes are left as they are."""
        bound = {}
        for position, argument in enumerate(n.target._schema.arguments):
            given = n.args[position] if position < len(n.args) else n.kwargs.get(argument.name, argument.default_value)
            bound[argument.name] = given
        return bound

    def _tensor(self, value: Any) -> Any:
        return self.env[value] if isinstance(value, torch.fx.Node) else value

    # what a node says

    def _read(self, n: Any, out: Any) -> None:
        name, short = n.target._schema.name, n.target._schema.name.split("::")[1]
        floats = any(t.is_floating_point() for t in tensors_in(out))
        if name == f"{SPACE}::quantize_per_tensor":
            self._quantize(n, out)
        elif name in (f"{SPACE}::dequantize_per_tensor", f"{SPACE}::dequantize_per_channel"):
            self._dequantize(n)
        elif n.target.namespace == SPACE:
            self._let_out(n)
            self._add(partial(uncovered, self._name(n), str(n.target), "qfuzz quantizes per tensor, by fixed qparams"))
        elif n.target.namespace in ("quantized", "onednn") or not floats:
            self._let_out(n)  # the trace has seen it, or it asks about a value
        elif any(a in self._facts for a in n.all_input_nodes):
            self._compute(n, out)
        elif n.all_input_nodes and short.rstrip("_") not in PLUMBING:
            self._add(Floats(self._name(n), (str(n.target),)))

    def _dequantize(self, n: Any) -> None:
        given = {name: self._tensor(value) for name, value in self._arguments(n).items()}
        stored = given["input"]
        dtype = STORAGE.get(stored.dtype)
        if dtype is None:
            return  # an int32 bias becomes a float32 one
        if "axis" not in given:
            q = QType.per_tensor(dtype, float32(float(given["scale"])), int(given["zero_point"]))
        else:
            scales, zeros = tuple(float32(s) for s in given["scales"].tolist()), given["zero_points"]
            q = QType(dtype, scales, (0,) * len(scales) if zeros is None else tuple(zeros.tolist()), int(given["axis"]))
        self._facts[n] = _Dequantized(stored, q)

    def _quantize(self, n: Any, out: Any) -> None:
        given = {name: self._tensor(value) for name, value in self._arguments(n).items()}
        source, name, kernel = n.args[0], self._name(n), str(n.target)
        fact, stored = self._facts.get(source), STORAGE.get(out.dtype)
        self._used.add(source)
        if stored is None:
            self._add(partial(uncovered, name, kernel, f"quantized to {out.dtype}; uint8 and int8 are judged"))
            return
        y = Value(integers_of(out), QType.per_tensor(stored, float32(float(given["scale"])), int(given["zero_point"])))
        limits = int(given["quant_min"]), int(given["quant_max"])
        match fact:
            case Chain():
                self._add(partial(folded, fact, y, limits))
            case _Dequantized():
                kernel = f"{', '.join((*fact.moves, kernel))} on dequantized float32"
                self._add(partial(alone, name, kernel, Requantize(), fact.value, y, limits))
            case None:
                self._add(partial(alone, name, kernel, Quantize(), value_of(given["input"]), y, limits))

    def _compute(self, n: Any, out: Any) -> None:
        """A float32 operator, some of whose operands come from quantized values."""
        sources = [a for a in n.all_input_nodes if a in self._facts]
        chains = [f for a in sources if isinstance(f := self._facts[a], Chain)]
        fact: _Fact | None
        if not chains:
            fact = self._moved(n, self._facts[sources[0]]) or self._begun(n, out)
        elif len(n.all_input_nodes) > 1:
            first = next(iter(chains))
            others = tuple(k for chain in chains[1:] for k in chain.kernels)
            fact = replace(first, kernels=first.kernels + others).broken(str(n.target), SEVERAL)
        else:
            fact = self._continued(n, chains[0])
        self._know(n, fact, *sources)

    def _moved(self, n: Any, fact: _Fact) -> _Fact | None:
        """The same move of the integers, where the operator is one."""
        name = n.target._schema.name
        if not isinstance(fact, _Dequantized) or name not in _SAME_ORDER | _OTHER_ORDER:
            return None
        if name == "aten::dropout" and n.args[2]:
            return None
        q, arguments = fact.qtype, [self._tensor(a) for a in n.args[1:]]
        if q.axis is not None:
            if name not in ("aten::t", "aten::transpose", "aten::permute") or fact.stored.dim() != 2:
                return None
            turned = name != "aten::permute" or tuple(d % 2 for d in n.args[1]) == (1, 0)
            q = replaced(q, axis=1 - q.axis) if turned else q
        moved = fact.stored if name == "aten::dropout" else n.target(fact.stored, *arguments, **n.kwargs)
        return _Dequantized(moved, q, (*fact.moves, str(n.target)))

    def _begun(self, n: Any, out: Any) -> Chain:
        """A chain that begins with this operator."""
        name, kernel = n.target._schema.name.rstrip("_"), str(n.target)
        moves = tuple(
            m for a in n.all_input_nodes if isinstance(f := self._facts.get(a), _Dequantized) for m in f.moves
        )
        chain = Chain(self._name(n), (*moves, kernel), shape=tuple(tensors_in(out)[0].shape))
        reading = FLOAT_READINGS.get(name)
        if reading is None:
            return replace(chain, problem="qfuzz has no such operator")
        arguments = {k: torch.fx.node.map_arg(v, self._operand) for k, v in self._arguments(n).items()}
        return replace(chain, call=Call(chain.name, name, "", arguments, (), ""), reading=reading)

    def _operand(self, n: Any) -> Any:
        fact = self._facts.get(n)
        return fact.value if isinstance(fact, _Dequantized) else value_of(self.env[n])

    def _continued(self, n: Any, chain: Chain) -> Chain:
        """`chain` with one more operator, of one operand."""
        name, kernel = n.target._schema.name.rstrip("_"), str(n.target)
        if name in _SAME_ORDER and not (name == "aten::dropout" and n.args[2]):
            return chain.then(kernel)
        if name == "aten::relu" and chain.is_open:
            return replace(chain.then(kernel), relu=True)
        if name in _CLAMPS and chain.is_open:
            given = self._arguments(n)
            low, high = (given[b] if isinstance(b, str) else b for b in _CLAMPS[name])
            return replace(chain.then(kernel), low=low, high=high)
        return chain.broken(kernel, SEVERAL)

    # what leaves the quantized part

    def _let_out(self, n: Any) -> None:
        """Float32 values that something else than a chain reads: dequantizing was a layer of its own."""
        for source in n.all_input_nodes:
            fact = self._facts.get(source)
            if isinstance(fact, _Dequantized) and fact.qtype.is_per_tensor and source not in self._out:
                self._out.add(source)
                y = value_of(self.env[source])
                kernel = ", ".join((f"{SPACE}.dequantize_per_tensor", *fact.moves))
                self._add(partial(alone, self._name(source), kernel, Dequantize(), fact.value, y, None))

    def _forget(self, n: Any) -> None:
        fact = self._facts.pop(n, None)
        if isinstance(fact, Chain) and n not in self._used:
            self._add(partial(uncovered, fact.name, fact.kernel, fact.problem or NEVER))

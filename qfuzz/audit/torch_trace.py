"""What a torch model does while it runs once: every call on quantized tensors, with the values that it saw.

A dispatch mode sees each operator after Python and autograd and before the kernel, whoever calls it: quantized modules,
functional calls, a scripted graph. Hooks on all modules say where in the model a call stands, and hold a user's own
subclass of a quantized module to what that module computes.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from qfuzz.audit.torch_values import Value, value_of

QUANTIZED_OPS = ("quantized", "onednn", "quantized_decomposed")
"""Namespaces whose operators compute on quantized values, whatever the type of their tensors."""
DECLARED = ("aten::_make_per_tensor_quantized_tensor", "aten::_make_per_channel_quantized_tensor")
"""Operators that call integers, wherever they come from, a quantized tensor."""
_PACKING = ("_prepack", "_unpack", "_pack")
PLUMBING = frozenset(
    (
        *("detach", "alias", "clone", "copy", "lift_fresh", "lift_fresh_copy", "_to_copy", "to_dense", "contiguous"),
        *("view", "_unsafe_view", "reshape", "_reshape_alias", "as_strided", "t", "transpose", "permute", "expand"),
        *("slice", "select", "squeeze", "unsqueeze", "split", "split_with_sizes", "unbind"),
        *("empty", "empty_like", "empty_strided", "zeros", "zeros_like", "ones", "ones_like", "full", "full_like"),
        *("fill", "zero", "arange", "scalar_tensor"),
    )
)
"""Operators of plain tensors that move or make values, and compute none."""
_FUNCTIONALS = ("add", "add_relu", "add_scalar", "mul", "mul_scalar", "cat", "matmul")
"""Methods of `torch.ao.nn.quantized.QFunctional`: what it does instead of `forward`."""


@dataclass(frozen=True)
class Call:
    """One operator that ran on quantized values.

    Attributes
    ----------
    name
        Where in the model: the module's name, with the operator's where the module holds others.
    op, overload
        As the dispatcher names them: ``quantized::conv2d_relu`` and ``new``.
    arguments
        By the schema's names, defaults filled in; tensors as they were before the call.
    outputs
        The tensors that it returned.
    engine
        ``torch.backends.quantized.engine`` at that moment.
    instead
        The user's code that took this operator's place and returned `outputs`; empty where the kernel itself did.
    """

    name: str
    op: str
    overload: str
    arguments: Mapping[str, Any]
    outputs: tuple[Value, ...]
    engine: str
    instead: str = ""

    def __getitem__(self, argument: str) -> Any:
        return self.arguments[argument]

    @property
    def x(self) -> Any:
        """The first argument, which schemas name in many ways."""
        return next(iter(self.arguments.values()))

    @property
    def kernel(self) -> str:
        """The operator as the dispatcher prints it."""
        return self.op if self.overload in ("", "default") else f"{self.op}.{self.overload}"


@dataclass(frozen=True)
class Floats:
    """Operators that computed on plain tensors within one module."""

    name: str
    ops: tuple[str, ...]


@dataclass
class _Frame:
    """A module that is running. `promised` is what its torch class would do; `kept` are copies of its arguments."""

    name: str
    module: Any = None
    promised: Callable[..., Any] | None = None
    kept: tuple[Any, ...] = ()
    floats: list[str] = field(default_factory=list)


class Trace(TorchDispatchMode):  # type: ignore[misc]  # torch is seen as Any
    """Records `events` while it is entered: `Call`, `Floats`, and functions that yield layers, which a graph adds.

    Attributes
    ----------
    where
        The name that calls have, set by an interpreter; empty where hooks say it.
    plain
        Whether plain tensors are seen; an interpreter that accounts for them itself says no.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []
        self.where = ""
        self.plain = True
        self._paused = False
        self._stack = [_Frame("")]
        self._last_made: Any = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        given = tensors_in((args, kwargs))
        space, short = func._schema.name.split("::")
        if space == "quantized_decomposed" and not self.plain:
            return func(*args, **kwargs)
        if space in QUANTIZED_OPS or short.startswith("quantized_") or any(t.is_quantized for t in given):
            arguments = bound_arguments(func._schema, args, kwargs)  # before the call, which may write to them
            out = func(*args, **kwargs)
            self._record(func._schema, arguments, out)
            return out
        out = func(*args, **kwargs)
        made = tensors_in(out)
        if given and any(t.is_quantized for t in made):
            self._record(func._schema, bound_arguments(func._schema, args, kwargs), out)
        elif self.plain and given and made and short.rstrip("_") not in PLUMBING:
            floats = self._stack[-1].floats
            if func._schema.name not in floats:
                floats.append(func._schema.name)
        return out

    def _record(self, schema: Any, arguments: Mapping[str, Any], out: Any) -> None:
        made = tensors_in(out)
        if not made or schema.name.endswith(_PACKING):
            return  # a question about a tensor, or weights put in another order: judged where they are used
        call = Call(
            name=self._name(schema.name.split("::")[1]),
            op=schema.name,
            overload=schema.overload_name,
            arguments=arguments,
            outputs=tuple(value_of(t) for t in made),
            engine=str(torch.backends.quantized.engine),
        )
        self.events.append(call)
        self._last_made = made[-1]

    def _name(self, short: str) -> str:
        frame = self._stack[-1]
        if self.where or (frame.name and _is_layer(frame.module)):
            return self.where or frame.name
        return f"{frame.name}.{short}" if frame.name else short

    # modules

    @property
    def module(self) -> str:
        """The name of the module that is running."""
        return self._stack[-1].name

    @contextmanager
    def naming(self, model: Any) -> Iterator[None]:
        """Follow which module of `model` is running, while entered."""
        with ExitStack() as undo:
            for name, module in model.named_modules():
                if isinstance(module, torch.jit.ScriptModule):
                    continue  # takes no hooks; what it calls is seen all the same
                if _promised_class(module, "QFunctional"):
                    self._wrap_methods(name, module, undo)
                    continue
                before = module.register_forward_pre_hook(partial(self._enter_module, name), prepend=True)
                after = module.register_forward_hook(self._leave_module)
                undo.callback(before.remove)
                undo.callback(after.remove)
            yield
            self._note_floats(self._stack[0])

    def _wrap_methods(self, name: str, module: Any, undo: ExitStack) -> None:
        for method in _FUNCTIONALS:
            own = getattr(module, method, None)
            if own is None or method in vars(module):
                continue
            setattr(module, method, partial(self._call_method, name, module, method, own))
            undo.callback(delattr, module, method)

    def _call_method(self, name: str, module: Any, method: str, own: Any, *args: Any, **kwargs: Any) -> Any:
        self._enter(name, module, method, (*args, *kwargs.values()))
        output = own(*args, **kwargs)
        self._leave(module, output)
        return output

    def _enter_module(self, name: str, module: Any, args: Any) -> None:
        self._enter(name, module, "forward", args)

    def _leave_module(self, module: Any, args: Any, output: Any) -> None:
        self._leave(module, output)

    def _enter(self, name: str, module: Any, method: str, args: tuple[Any, ...]) -> None:
        frame = _Frame(name, module)
        base = _promised_class(module)
        if base is not None and not _is_stock(module, base, method):
            frame.promised = partial(getattr(base, method), module)
            with self.paused():
                frame.kept = tree_map_only(torch.Tensor, torch.clone, args)
        self._stack.append(frame)

    def _leave(self, module: Any, output: Any) -> None:
        while self._stack[-1].module is not module:
            self._stack.pop()  # it raised, and the model went on
        frame = self._stack[-1]
        if frame.promised is not None and isinstance(output, torch.Tensor) and output.is_quantized:
            self._hold_to_promise(frame, frame.promised, output)
        self._stack.pop()
        self._note_floats(frame)

    def _hold_to_promise(self, frame: _Frame, promised: Callable[..., Any], output: Any) -> None:
        """Record what a changed quantized module returned as the work of the kernel that its torch class calls.

        Where the value comes straight from a kernel, that kernel is judged already.
        """
        made_by_last = self._last_made is output
        if made_by_last and self.events[-1].op not in DECLARED:
            return
        seen, self.events = self.events, []
        promised(*frame.kept)
        calls, self.events = [e for e in self.events if isinstance(e, Call)], seen
        if not calls:
            return
        if made_by_last:
            self.events.pop()
        with self.paused():
            returned = value_of(output)
        if any(_is_returned(e, calls[-1], frame.name, returned) for e in self.events):
            return  # a hook that only looked
        kind = type(frame.module)
        who = "a forward hook" if kind.__module__.startswith("torch.") else f"{kind.__module__}.{kind.__qualname__}"
        self.events.append(replace(calls[-1], name=frame.name, outputs=(returned,), instead=who))

    def _note_floats(self, frame: _Frame) -> None:
        if frame.floats:
            self.events.append(Floats(frame.name or "model", tuple(frame.floats)))
            frame.floats.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """See nothing, while entered."""
        self._paused, before = True, self._paused
        try:
            yield
        finally:
            self._paused = before


def tensors_in(tree: Any) -> list[Any]:
    """All tensors of a nested structure."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def bound_arguments(schema: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Arguments by name, with tensors as they are now."""
    bound = {}
    for position, argument in enumerate(schema.arguments):
        if position < len(args):
            bound[argument.name] = args[position]
        else:
            bound[argument.name] = kwargs.get(argument.name, argument.default_value)
    return {name: tree_map_only(torch.Tensor, value_of, value) for name, value in bound.items()}


def _promised_class(module: Any, name: str = "") -> Any:
    """The quantized class of torch that a module is, or derives from; None where there is none."""
    for base in type(module).__mro__:
        if base.__module__.startswith("torch.") and "quantized" in base.__module__ and name in ("", base.__name__):
            return base
    return None


def _is_stock(module: Any, base: Any, method: str) -> bool:
    """Whether torch's own code alone makes the module's output: no overriding method, no hook of the user."""
    ours = 1  # the hook that asks, registered before any call
    own = getattr(type(module), method, None) is getattr(base, method) and "forward" not in vars(module)
    return own and len(module._forward_hooks) <= ours


def _is_returned(event: Any, promised: Call, name: str, returned: Any) -> bool:
    """Whether an event is the promised kernel's own, and made what was returned."""
    if not isinstance(event, Call) or (event.op, event.name) != (promised.op, name) or event.instead:
        return False
    made = event.outputs[-1]
    return made.element == returned.element and np.array_equal(made.array, returned.array)


def _is_layer(module: Any) -> bool:
    """Whether a module is one layer to its user: calls in it go by its name alone."""
    if isinstance(module, (torch.fx.GraphModule, torch.jit.ScriptModule)):
        return False
    return type(module).__module__.startswith("torch.") or _promised_class(module) is not None

"""Which backends there are, and how a name becomes one: a literal list, entry points, or ``module:Class``."""

import importlib
import importlib.util
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from qfuzz.ir.errors import BackendMissing, InvalidCase, UnknownBackend
from qfuzz.ir.protocols import Backend

GROUP = "qfuzz.backends"
"""Entry-point group in which other packages name their backends: a class, or a callable that takes the options."""


class Known(NamedTuple):
    """A built-in backend.

    Attributes
    ----------
    target
        ``module:callable``, called with the options as keyword arguments.
    arguments
        Arguments that the name itself stands for.
    needs
        Modules that must be installed.
    extra
        What to install to have them.
    framework
        That of `needs` which another Python has where the backend is given one with ``python=``.
    """

    target: str
    arguments: Mapping[str, str]
    needs: tuple[str, ...] = ()
    extra: str = ""
    framework: str = ""

    def missing(self, options: Mapping[str, str]) -> list[str]:
        """Modules that must be installed here for these options, and are not."""
        elsewhere = self.framework if options.get("python") else ""
        return [m for m in self.needs if m != elsewhere and importlib.util.find_spec(m) is None]


_TORCH = ("torch",)
_ORT = ("onnxruntime", "onnx")

BUILT_IN: dict[str, Known] = {
    **{
        f"torch-{engine}": Known(
            "qfuzz.backends.torch_backends:TorchBackend", {"engine": engine}, _TORCH, "torch", "torch"
        )
        for engine in ("fbgemm", "x86", "onednn", "qnnpack")
    },
    "torch-export": Known("qfuzz.backends.torch_backends:TorchBackend", {"engine": "export"}, _TORCH, "torch", "torch"),
    "onnxruntime": Known("qfuzz.backends.onnx_backends:OnnxRuntimeBackend", {}, _ORT, "onnxruntime", "onnxruntime"),
    "onnx-reference": Known("qfuzz.backends.onnx_reference:OnnxReferenceBackend", {}, ("onnx",), "onnxruntime"),
    "reference": Known("qfuzz.backends.reference:ReferenceBackend", {}),
    "planted": Known("qfuzz.arithmetic.planted:PlantedBackend", {}),
}
"""Backends that come with qfuzz, in the order in which they are listed."""

DEFAULT_RIDES: tuple[tuple[str, int], ...] = (
    ("torch-fbgemm", 1),
    ("torch-x86", 1),
    ("torch-onednn", 1),
    ("torch-qnnpack", 1),
    ("torch-export", 4),
    ("torch-export?format=qdq", 4),
    ("onnxruntime", 1),
    ("onnxruntime?format=qdq&opt=disable", 1),
    ("onnxruntime?format=qdq&opt=all", 1),
    ("onnxruntime?format=qdq&opt=basic", 4),
    ("onnxruntime?format=qdq&opt=extended", 4),
)
"""What `run` uses where nothing is asked for, and on every how many-th example by index."""


def load_backend(spec: str) -> Backend:
    """The backend that `spec` names: ``name``, ``name?key=value&…`` or ``module:Class`` (with options, too).

    Raises
    ------
    BackendMissing
        In one line: what is unknown or not installed, and what would do.
    """
    name, options = parse_spec(spec)
    if ":" in name:
        return _made(spec, _imported(name), options)
    if name in BUILT_IN:
        known = BUILT_IN[name]
        if missing := known.missing(options):
            raise BackendMissing(f"backend {spec!r}: {missing[0]} is not installed; pip install 'qfuzz[{known.extra}]'")
        return _made(spec, _imported(known.target), {**known.arguments, **options})
    for point in entry_points(group=GROUP):
        if point.name == name:
            return _made(spec, point.load(), options)
    names = ", ".join([*BUILT_IN, *(p.name for p in entry_points(group=GROUP))])
    raise UnknownBackend(f"backend {spec!r}: unknown; there are {names}, and module:Class")


def parse_spec(spec: str) -> tuple[str, dict[str, str]]:
    """The name and the options of a spec."""
    name, _, query = spec.partition("?")
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        raise UnknownBackend(f"backend {spec!r}: options are key=value, joined by &") from None
    return name, options


def canonical(spec: str) -> str:
    """The spec as its backend names itself."""
    name, _ = parse_spec(spec)
    return spec if ":" in name else load_backend(spec).name


def default_specs() -> tuple[str, ...]:
    """The default set, less what is not installed."""
    return tuple(spec for spec, _ in default_rides())


def default_rides() -> tuple[tuple[str, int], ...]:
    """`DEFAULT_RIDES`, less what is not installed."""
    return tuple((spec, every) for spec, every in DEFAULT_RIDES if is_installed(spec))


def is_installed(spec: str) -> bool:
    """Whether what a built-in backend needs in this Python can be imported."""
    name, options = parse_spec(spec)
    return name in BUILT_IN and not BUILT_IN[name].missing(options)


def _imported(target: str) -> Any:
    module_name, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, ValueError) as e:
        raise BackendMissing(f"backend {target!r}: cannot be imported: {e}") from None
    except AttributeError:
        raise BackendMissing(f"backend {target!r}: module {module_name} has no {attribute}") from None


def _made(spec: str, factory: Any, options: Mapping[str, str]) -> Backend:
    try:
        backend = factory(**options)
    except InvalidCase as e:
        raise UnknownBackend(f"backend {spec!r}: {e}") from None
    except TypeError as e:
        raise UnknownBackend(f"backend {spec!r}: does not take these options: {e}") from None
    if not isinstance(backend, Backend):
        raise BackendMissing(f"backend {spec!r}: {type(backend).__name__} is no qfuzz.Backend (see qfuzz.ir.protocols)")
    return backend

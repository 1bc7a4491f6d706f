"""What kernels do to memory: writes around their inputs, outputs never written, and memory that runs out.

Standard library and NumPy only: other Pythons, which have no qfuzz, load this file by its path.
"""

import contextlib
import ctypes
import re
import resource
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

BAND = 256
"""Bytes before, between and after arrays that no kernel has any business with."""
ALIGNMENT = 64
"""Arrays begin at a multiple of it, as the frameworks' own do."""

FILLS = (0x5A, 0xD4)
"""What fresh memory holds in the first and in the second of two identical runs. Each dtype reads the first as a large
positive number and the second, where it is signed, as a large negative one: no saturation makes them equal."""
BANDS = FILLS[::-1]
"""What the bands hold in the first and in the second run."""


class Guarded:
    """Arrays for a kernel to read, in one buffer with bands around them.

    Parameters
    ----------
    sources
        What the arrays hold, by name.

    Attributes
    ----------
    arrays
        Writeable C-contiguous arrays by name; what they hold is defined after `fill`.
    """

    def __init__(self, sources: Mapping[str, Any]) -> None:
        self._sources = dict(sources)
        self._spans: list[tuple[str, int, int]] = []
        at = BAND
        for name, source in self._sources.items():
            self._spans.append((name, at, at + source.nbytes))
            at = -(-(at + source.nbytes + BAND) // ALIGNMENT) * ALIGNMENT
        raw = np.empty(at + ALIGNMENT, dtype=np.uint8)
        offset = -raw.ctypes.data % ALIGNMENT
        self._memory = raw[offset : offset + at]
        self._filled = b""
        self.arrays: dict[str, Any] = {
            name: np.ndarray(source.shape, source.dtype, self._memory, start)
            for (name, start, _), source in zip(self._spans, self._sources.values(), strict=True)
        }

    def fill(self, byte: int) -> None:
        """Write the sources' values, and `byte` all around them."""
        self._memory.fill(byte)
        for array, source in zip(self.arrays.values(), self._sources.values(), strict=True):
            array[...] = source
        self._filled = self._memory.tobytes()

    def damage(self) -> str:
        """What was written since `fill`, or nothing."""
        now = self._memory.tobytes()
        if now == self._filled:
            return ""
        changed = np.flatnonzero(np.frombuffer(now, np.uint8) != np.frombuffer(self._filled, np.uint8))
        said = []
        band_start, before = 0, ""
        for name, start, end in self._spans:
            said.append(self._damage_to_band(changed, band_start, start, before, name))
            if ((changed >= start) & (changed < end)).any():
                said.append(f"input {name!r} was changed by the run")
            band_start, before = end, name
        said.append(self._damage_to_band(changed, band_start, len(now), before, ""))
        return "; ".join(text for text in said if text)

    @staticmethod
    def _damage_to_band(changed: Any, start: int, end: int, before: str, after: str) -> str:
        """What was written between the arrays `before` and `after`, told of the nearer one; either may be missing."""
        here = changed[(changed >= start) & (changed < end)]
        if not here.size:
            return ""
        is_past = not after or (bool(before) and here[0] - start <= end - 1 - here[-1])
        where = f"past the end of input {before!r}" if is_past else f"before the start of input {after!r}"
        return f"{here.size} bytes {where} were written" if here.size > 1 else f"1 byte {where} was written"


_M_PERTURB = -6


def _glibc_mallopt() -> Callable[[int, int], int] | None:
    with contextlib.suppress(OSError, TypeError):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):
            mallopt: Callable[[int, int], int] = libc.mallopt
            return mallopt
    return None


_MALLOPT = _glibc_mallopt()


def fill_allocations(byte: int) -> None:
    """Fill memory that malloc hands out from now on with `byte`, and what is freed with its complement; 0 ends it.

    Without glibc nothing happens. Two kinds of small blocks are not filled: those of up to 1,032 bytes that malloc
    keeps per thread (none where the process was started with ``GLIBC_TUNABLES=glibc.malloc.tcache_count=0``), and those
    of less than 1,024 bytes that NumPy keeps for its own arrays.
    """
    if _MALLOPT is not None:
        _MALLOPT(_M_PERTURB, byte ^ 0xFF if byte else 0)


def difference(first: Any, second: Any) -> str:
    """Where the results of two identical runs differ first; ``not written`` where memory still holds its filling.

    Parameters
    ----------
    first, second
        Arrays that are not bit-equal, of the runs whose memory was filled with `FILLS`.
    """
    if first.shape != second.shape or first.dtype != second.dtype:
        return f": {first.dtype.name} {first.shape}, then {second.dtype.name} {second.shape}"
    size = first.dtype.itemsize
    raw = [np.frombuffer(a.tobytes(), np.uint8).reshape(-1, size) for a in (first, second)]
    at = int(np.flatnonzero((raw[0] != raw[1]).any(axis=1))[0])
    index = ", ".join(str(int(i)) for i in np.unravel_index(at, first.shape))
    values = f"{first.flat[at]}, then {second.flat[at]}"
    is_fill = all((r[at] == fill).all() for r, fill in zip(raw, FILLS, strict=True))
    return f" at [{index}]: " + ("not written" if is_fill else values)


_NO_MEMORY = re.compile(
    r"can.?t allocate memory|cannot allocate memory|std::bad_alloc|bad allocation|failed to allocate memory"
    r"|unable to allocate|out of memory|MemoryError",
    re.IGNORECASE,
)
"""How they word it: PyTorch's allocator, the C library, C++, ONNX Runtime's arena, NumPy, Python."""

_ASKED = re.compile(r"(?:tried to allocate|requested buffer of size|Unable to allocate) ([\d.]+) ?([KMGTPE]iB)?")
_ABSURD = 2**40
"""Bytes that no kernel gets for a case, limit or not: who asks for so many has computed a wrong size."""


def says_no_memory(text: str) -> bool:
    """Whether a message or a process's last words tell of an allocation that failed."""
    return bool(_NO_MEMORY.search(text))


def limit_reached(message: str) -> str:
    """Why a call failed, where `message` says that it could have no memory and this process has a limit; else nothing.

    A request for an absurd number of bytes has met no limit: it would fail anywhere.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY or not says_no_memory(message):
        return ""
    asked = _ASKED.search(message)
    if asked and float(asked[1]) * 1024 ** (" KMGTPE".index(asked[2][0]) if asked[2] else 0) > _ABSURD:
        return ""
    return f"memory limit of {limit // 2**20} MiB reached: {message}"

"""Ctrl-C and SIGTERM as a question: a campaign ends in order at the first, at once at the second."""

import signal
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """A context manager inside which signals are counted; called, it says whether one came."""

    def __init__(self) -> None:
        self._count = 0
        self._before: list[Any] = []

    def __call__(self) -> bool:
        return self._count > 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count > 1:
            raise KeyboardInterrupt

    def __enter__(self) -> "Interrupts":
        self._before = [signal.signal(s, self._note) for s in SIGNALS]
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for s, handler in zip(SIGNALS, self._before, strict=True):
            signal.signal(s, handler)

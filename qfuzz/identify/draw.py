"""Numbers that follow from a key."""

from qfuzz.exact.rounding import Ints
from qfuzz.strategies import fill


class Draw:
    """Numbers of one key, one after another."""

    def __init__(self, key: int) -> None:
        self._key, self._stream = key, 0

    def words(self, n: int) -> fill.Words:
        """`n` fresh words."""
        self._stream += 1
        return fill.words(self._key, n, stream=self._stream)

    def integers(self, n: int, low: int, high: int) -> Ints:
        """`n` integers in low..high."""
        return low + fill.below(self.words(n), high - low + 1)

    def integer(self, low: int, high: int) -> int:
        """One integer in low..high."""
        return int(self.integers(1, low, high)[0])

    def mantissa(self) -> float:
        """A float32 in 1..2 with random bits."""
        return 1 + self.integer(1, 2**23 - 1) * 2.0**-23

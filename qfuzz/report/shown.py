"""Names, numbers and sizes as a reader sees them. What could hide or reorder text is made visible."""

_THOUSANDS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def shown(text: str) -> str:
    r"""Text with everything that does not print as an escape: controls, bidirectional overrides, lone surrogates.

    Line feeds and tabs stay. ``"a\u202eb"`` becomes the eight visible characters ``a\u202eb``, so the result can be
    encoded, and reads in the order in which it is stored.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str, width: int) -> str:
    """Text on one line of at most `width` characters: where it is longer, its middle is left out."""
    line = " ".join(shown(text).split())
    if len(line) <= width:
        return line
    head = (width - 1) * 2 // 3
    return line[:head] + "…" + line[len(line) - (width - 1 - head) :]


def short_count(n: float) -> str:
    """A count in at most five characters: 950, 1.2k, 34k, 5.6M."""
    for unit, size in _THOUSANDS:
        if n >= size:
            scaled = n / size
            return f"{scaled:.1f}".removesuffix(".0") + unit if scaled < 9.95 else f"{scaled:.0f}{unit}"
    return f"{n:g}"


def file_size(n_bytes: int) -> str:
    """Bytes as 15 B, 1.4 KiB, 3.0 MiB."""
    if n_bytes < 1024:
        return f"{n_bytes} B"
    return f"{n_bytes / 1024:.1f} KiB" if n_bytes < 2**20 else f"{n_bytes / 2**20:.1f} MiB"


def duration(seconds: float) -> str:
    """Seconds as 38 ms, 4.2 s, 12 min 5 s, 8 h 3 min."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.2g} ms" if seconds < 0.0995 else f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"

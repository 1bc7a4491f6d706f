"""A finding's `report.md` as blocks of plain text: the few forms of Markdown that qfuzz writes, and no other.

Nothing here makes markup. The template escapes every text, so a report may hold any string.
"""

import itertools
import re
from typing import Literal

import msgspec


class Span(msgspec.Struct, frozen=True):
    """A piece of a paragraph."""

    kind: Literal["plain", "strong", "code"]
    text: str


class Block(msgspec.Struct, frozen=True):
    """A heading or code with its `text`; a paragraph or a list with its `lines`."""

    kind: Literal["heading", "paragraph", "list", "code"]
    text: str = ""
    lines: tuple[tuple[Span, ...], ...] = ()


_SPAN = re.compile(r"\*\*(?P<strong>[^*\n]+)\*\*|`(?P<code>[^`\n]+)`")


def blocks(report: str) -> tuple[Block, ...]:
    """The report's blocks, without its title: the page has one already."""
    found: list[Block] = []
    lines = iter(report.replace("\r\n", "\n").split("\n"))
    for line in lines:
        if line.startswith("```"):
            found.append(Block("code", "\n".join(itertools.takewhile(_is_no_fence, lines))))
        elif line.startswith("    "):
            found.append(Block("code", line[4:]))
        elif line.startswith("## "):
            found.append(Block("heading", line[3:].strip()))
        elif line.startswith("- "):
            found.append(Block("list", lines=(spans(line[2:]),)))
        elif line.strip() and not line.startswith("# "):
            found.append(Block("paragraph", lines=(spans(line),)))
    return tuple(_joined(found))


def _is_no_fence(line: str) -> bool:
    return not line.startswith("```")


def _joined(found: list[Block]) -> list[Block]:
    """Neighbouring pieces of code are one, and so are neighbouring items of a list."""
    joined: list[Block] = []
    for block in found:
        last = joined[-1] if joined else None
        if last is None or last.kind != block.kind or block.kind not in ("code", "list"):
            joined.append(block)
        elif block.kind == "code":
            joined[-1] = Block("code", f"{last.text}\n{block.text}")
        else:
            joined[-1] = Block("list", lines=last.lines + block.lines)
    return joined


def spans(line: str) -> tuple[Span, ...]:
    """A line's plain, strong and code pieces; what closes nothing is plain."""
    pieces: list[Span] = []
    end = 0
    for match in _SPAN.finditer(line):
        pieces.append(Span("plain", line[end : match.start()]))
        strong, code = match["strong"], match["code"]
        pieces.append(Span("strong", strong) if strong is not None else Span("code", code))
        end = match.end()
    pieces.append(Span("plain", line[end:]))
    return tuple(p for p in pieces if p.text)

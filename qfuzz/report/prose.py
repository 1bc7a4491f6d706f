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
    """A heading, a paragraph or list item of `spans`, or lines of code as they stand."""

    kind: Literal["heading", "paragraph", "item", "code"]
    text: str = ""
    spans: tuple[Span, ...] = ()


_SPAN = re.compile(r"\*\*(?P<strong>[^*\n]+)\*\*|`(?P<code>[^`\n]+)`")


def blocks(report: str) -> tuple[Block, ...]:
    """The report's blocks, without its title: the page has one already."""
    found: list[Block] = []
    lines = iter(report.splitlines())
    for line in lines:
        if line.startswith("```"):
            found.append(Block("code", "\n".join(itertools.takewhile(_is_no_fence, lines))))
        elif line.startswith("    "):
            found.append(Block("code", line[4:]))
        elif line.startswith("## "):
            found.append(Block("heading", line[3:].strip()))
        elif line.startswith("- "):
            found.append(Block("item", spans=spans(line[2:])))
        elif line.strip() and not line.startswith("# "):
            found.append(Block("paragraph", spans=spans(line)))
    return tuple(_joined(found))


def _is_no_fence(line: str) -> bool:
    return not line.startswith("```")


def _joined(found: list[Block]) -> list[Block]:
    """Neighbouring indented lines are one piece of code."""
    joined: list[Block] = []
    for block in found:
        if block.kind == "code" and joined and joined[-1].kind == "code":
            joined[-1] = Block("code", f"{joined[-1].text}\n{block.text}")
        else:
            joined.append(block)
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

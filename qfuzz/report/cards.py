"""Findings as cards: what the document says of each, its arithmetic, and its files."""

from collections.abc import Mapping

import msgspec

from qfuzz.report.document import FoundBug
from qfuzz.report.downloads import Download, archive, downloads
from qfuzz.report.prose import Block, blocks


class Card(msgspec.Struct, frozen=True):
    """One finding.

    Attributes
    ----------
    number
        From 1, in the order of the page; the card's address in the page.
    backends
        All that reproduce it.
    form
        The part of the signature that says which cases show it.
    issues
        Of a known one: what the corpus says of it, link and note.
    story
        `report.md`, in blocks; empty where there is none.
    files
        Links to the files of its folder, whole first.
    """

    number: int
    bug: FoundBug
    backends: tuple[str, ...]
    form: str
    issues: tuple[tuple[str, str], ...]
    story: tuple[Block, ...]
    files: tuple[Download, ...]


class _Issue(msgspec.Struct, frozen=True):
    verdict: str = ""
    link: str = ""
    note: str = ""


class _CorpusFile(msgspec.Struct, frozen=True):
    expect: tuple[_Issue, ...] = ()


def cards(bugs: tuple[FoundBug, ...], folders: Mapping[str, Mapping[str, bytes]]) -> tuple[Card, ...]:
    """The cards of all findings, new ones first; `folders` are files by name, by the finding's path."""
    ordered = sorted(bugs, key=lambda bug: bug.known)
    return tuple(_card(i, bug, folders.get(bug.path, {})) for i, bug in enumerate(ordered, 1))


def _card(number: int, bug: FoundBug, files: Mapping[str, bytes]) -> Card:
    links = downloads(files)
    if len(files) > 1:
        links = (archive(bug.path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1], files), *links)
    return Card(
        number=number,
        bug=bug,
        backends=bug.backends or ((bug.backend,) if bug.backend else ()),
        form=bug.signature.split("/", 3)[3] if bug.signature.count("/") >= 3 else "",
        issues=_issues(files) if bug.known else (),
        story=blocks(files.get("report.md", b"").decode("utf-8", "replace")),
        files=links,
    )


def _issues(files: Mapping[str, bytes]) -> tuple[tuple[str, str], ...]:
    """Links and notes of a corpus file's known issues, each once."""
    found: dict[tuple[str, str], None] = {}
    for name, data in sorted(files.items()):
        if not name.endswith(".json"):
            continue
        try:
            file = msgspec.json.decode(data, type=_CorpusFile)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue  # no corpus file: it is still there to be saved
        found |= {(i.link, i.note): None for i in file.expect if i.verdict != "holds" and (i.link or i.note)}
    return tuple(found)

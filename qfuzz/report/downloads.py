"""Files inside the page: links whose address is the file itself, under names that any system can store."""

import base64
import io
import re
import zipfile
from collections.abc import Mapping

import msgspec

from qfuzz.report.shown import file_size

LARGEST = 2**20
"""Bytes of a file that is put into the page; browsers refuse to save from addresses much longer than this."""
_NAME_LENGTH = 100
_EPOCH = (1980, 1, 1, 0, 0, 0)


class Download(msgspec.Struct, frozen=True):
    """A file to save.

    Attributes
    ----------
    label
        The file's name, as it was.
    name
        What it is saved as: letters, digits, dots, dashes and underscores.
    address
        A ``data:`` address; empty where the file is too large for the page.
    """

    label: str
    name: str
    size: str
    address: str


def downloads(files: Mapping[str, bytes]) -> tuple[Download, ...]:
    """Links to all files, in order of name."""
    return tuple(
        Download(label, safe_name(label.replace("/", "-")), file_size(len(data)), _address(data, "octet-stream"))
        for label, data in sorted(files.items())
    )


def archive(name: str, files: Mapping[str, bytes]) -> Download:
    """One link to all files as a folder; the same files give the same bytes."""
    buffer = io.BytesIO()
    folder = safe_name(name)
    with zipfile.ZipFile(buffer, "w") as z:
        for i, (label, data) in enumerate(sorted(files.items())):
            parts = [safe_name(part) for part in label.split("/") if part not in ("", ".", "..")]
            path = "/".join([folder, *(parts or [f"file-{i}"])])
            if path in z.namelist():
                path = f"{path}.{i}"
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.external_attr = 0o644 << 16
            z.writestr(entry, data, zipfile.ZIP_DEFLATED)
    data = buffer.getvalue()
    return Download("all files, as .zip", f"{folder}.zip", file_size(len(data)), _address(data, "zip"))


def safe_name(name: str) -> str:
    """A file name made of letters, digits, dots, dashes and underscores that starts with none of the last three.

    >>> safe_name("../../.bashrc"), safe_name("a b.json"), safe_name("‮")
    ('bashrc', 'a_b.json', 'file')
    """
    kept = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip("._-")
    return kept[-_NAME_LENGTH:].lstrip("._-") or "file"


def _address(data: bytes, kind: str) -> str:
    if len(data) > LARGEST:
        return ""
    return f"data:application/{kind};base64,{base64.b64encode(data).decode('ascii')}"

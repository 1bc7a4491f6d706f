"""Writing so that no half a file is ever left: write beside, then rename."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

TEMPORARY = ".qfuzz-writing."
"""How names begin of what is not whole yet. A process that is killed leaves it; nobody else's name begins so."""


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=f"{TEMPORARY}{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder `path` with `files` (relative names), replacing one of that name. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{path.name}.", dir=path.parent))
    try:
        for name, data in files.items():
            write_file(temporary / name, data)
        os.chmod(temporary, 0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{path.name}.old.", dir=path.parent))
            os.replace(path, old / path.name)
            os.replace(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise

"""Arrays of a user's ``.npz`` file: plain numbers only, for objects would have to be unpickled."""

import zipfile
from pathlib import Path

import numpy as np

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.protocols import Array


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an ``.npz`` file by name. Objects that need unpickling are refused.

    Raises
    ------
    InvalidCase
        In one line.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise InvalidCase(f"{path}: one array; inputs are an .npz file, which has names")
        with file:
            return {name: np.asarray(file[name]) for name in file.files}
    except InvalidCase:
        raise
    except FileNotFoundError:
        raise InvalidCase(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile) as e:
        raise InvalidCase(f"{path}: no .npz file of arrays: {' '.join(str(e).split())[:200]}") from None

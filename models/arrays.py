"""Arrays for a whole market, which may be larger than the memory at hand.

A large array is a file without a name in the folder for temporary files (TMPDIR), gone with the array. The system keeps
of it in memory what it has room for, and whoever has gone over a part of it says so, that it may be counted as free.
"""

import math
import mmap
import os
import weakref
from tempfile import TemporaryFile, gettempdir
from typing import Any

import numpy as np

from volcast.models.errors import NoRoom

LARGE = 2**28  # bytes from which on an array is a file
RESERVE = getattr(os, "posix_fallocate", lambda file, _, size: os.ftruncate(file, size))  # macOS has none

_files: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def empty(shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    """As np.empty. Raises NoRoom where the folder has none for the file of a large one."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < LARGE:
        return np.empty(shape, dtype)
    with TemporaryFile(prefix="volcast-") as file:
        try:
            RESERVE(file.fileno(), 0, size)  # without which a full disk would kill the process later
        except OSError as error:
            raise NoRoom(
                f"{gettempdir()} has no room for {size / 2**30:.1f} GB of a computation: {error.strerror}. Make room "
                "there, or name another folder on a disk: TMPDIR=/some/folder volcast …"
            ) from error
        mapped = mmap.mmap(file.fileno(), size)
    _files.add(mapped)
    return np.frombuffer(mapped, dtype).reshape(shape)


def let_go() -> None:
    """Nothing of the large arrays needs to stay in memory: what is asked for again comes back."""
    for mapped in list(_files):
        mapped.madvise(mmap.MADV_DONTNEED)

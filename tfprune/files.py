"""Files that are whole or absent."""

import contextlib
import gzip
import os
import secrets
from pathlib import Path

_SMALL = 2**24  # bytes; the best level takes minutes for a large file that is full of zeros


def gzip_size(data: bytes) -> int:
    """Size in bytes after `gzip -9`, from 16 MiB on `gzip -6`, with no time stamp."""
    return len(gzip.compress(data, 9 if len(data) < _SMALL else 6, mtime=0))


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` whole: on any failure the old file stays and nothing else is left."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Sync a folder where the system allows it; its files are there already."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

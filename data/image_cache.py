"""The files that decoded images are kept in: where they lie, their checksums, and room on the disk for them."""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.files import fingerprint

CACHE_VERSION = 4  # raise it when the meaning of a cached pixel changes


def status_of(file: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds; of a link to nothing, -1 and -1."""
    try:
        status = file.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def cache_file(root: Path, files: Sequence[Path], *description: object) -> Path:
    """Where the decoded images of these files are kept: the name holds names, sizes, times and preprocessing."""
    folder = root / ".cache"
    if not os.access(folder if folder.is_dir() else root, os.W_OK):  # a read-only disk, as clusters have it
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        folder = home / "latent-autoencoders" / fingerprint(str(root.resolve()))
    # As bytes: a name need not be valid text.
    parts = (os.fsencode(os.path.relpath(file, root)) + repr(status_of(file)).encode() for file in files)
    return folder / f"{fingerprint(CACHE_VERSION, description, *parts)}.npy"


def file_checksum(path: Path) -> int:
    """CRC-32 of a file's content: a gigabyte in about a second."""
    checksum = 0
    with open(path, "rb") as stream:
        while chunk := stream.read(2**24):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def read_index(cache: Path, index_file: Path) -> list[int] | None:
    """The indices of the files in a cache; None where there is none, or it is damaged, which is printed."""
    if not (cache.is_file() and index_file.is_file()):
        return None
    try:
        with np.load(index_file, allow_pickle=False) as index:  # whose own checksums are compared
            kept, checksum = index["kept"].tolist(), int(index["checksum"])
        if file_checksum(cache) == checksum:
            return kept
        reason = "its checksum is another"
    except Exception as error:
        reason = f"its index cannot be read, {type(error).__name__}"
    print(f"{cache}: this cache is damaged ({reason}): decoding the images again")
    return None


def allocate(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A memory-mapped uint8 array in a new .npy file. Raises OSError where the disk has no room for all of it."""
    pixels = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):  # a write to a page that has no block on the disk ends the process
        with open(path, "r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return pixels

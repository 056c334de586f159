"""Compressed files, refused by the size that they claim before they fill the memory."""

import gzip
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

from utils.errors import UserError

LIMIT = 2**32  # bytes: six times the largest published file
CHUNK = 2**20
MAT_COMPRESSED = 15  # type of an element of a MATLAB 5 file


def refuse_larger(path: Path, size: int) -> None:
    """Raises UserError where a file unpacks to more than ``LIMIT`` bytes."""
    if size > LIMIT:
        raise UserError(f"{path}: claims to hold {size:,} bytes or more, expected at most {LIMIT:,}: is it damaged?")


def check(path: Path) -> None:
    """Raises UserError for a gzip, zip (.npz) or MATLAB 5 file that unpacks to too much; of a damaged one whatever."""
    if path.suffix.lower() == ".gz":
        size = 0
        with gzip.open(path) as stream:
            while chunk := stream.read(CHUNK):
                size += len(chunk)
                refuse_larger(path, size)
    elif path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive:
            refuse_larger(path, sum(member.file_size for member in archive.infolist()))
    elif path.suffix.lower() == ".mat":
        refuse_larger(path, unpacked_mat(path.read_bytes()))
        # SciPy ends the whole process on an element of an unknown type: here it is another one.
        command = [sys.executable, "-c", "import sys, scipy.io; scipy.io.loadmat(sys.argv[1])", str(path)]
        status = subprocess.run(command, capture_output=True, check=False).returncode
        if status not in (0, 1):  # 1: an exception, which the caller will meet
            raise UserError(f"{path}: damaged (it ends its reader with status {status}): get it again")


def unpacked_mat(content: bytes) -> int:
    """The sum of the sizes that the compressed elements of a MATLAB 5 file name, bytes; 0 for another version."""
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    place, size = 128, 0
    while order and place + 8 <= len(content):
        kind, length = struct.unpack(f"{order}2I", content[place : place + 8])
        if kind == MAT_COMPRESSED:
            head = zlib.decompressobj().decompress(content[place + 8 : place + 8 + length], 8)
            size += struct.unpack(f"{order}2I", head)[1] if len(head) == 8 else 0
        place += 8 + length
    return size

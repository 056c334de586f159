"""Files that are either whole or not there: written under a temporary name beside their place, then renamed."""

import contextlib
import csv
import errno
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

TEMPORARY = ".tmp-"  # how the name of a file begins that is being written
written: list[Path] = []  # by this process: what it says when it fails
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what a file system answers that has none


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Let an OSError inside that names none, of a full disk say, or a temporary one, name the file."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or TEMPORARY in str(error.filename)):
            error.filename, error.filename2 = str(path), None
        raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it takes the place of ``path`` when the block ends, and goes if it fails.

    A link stays one: the file that it points to is replaced. What killed processes left in the folder is removed.
    """
    path = Path(os.path.realpath(path))
    with named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY, suffix=path.suffix or ".tmp")
        temporary = Path(name)
        try:
            lock(handle)  # if it was removed before that, whoever writes makes it again
            yield temporary
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp makes it private
            os.replace(temporary, path)
            with contextlib.suppress(OSError):  # a file system, or Windows, where a folder cannot be synchronised
                folder = os.open(path.parent, os.O_RDONLY)
                os.fsync(folder)
                os.close(folder)
            written.append(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)


def lock(handle: int) -> bool:
    """Lock an open file against other processes, until it is closed; whether that was possible."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # Windows, another process, or a file system without locks
        return False
    return True


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files that no process is writing: whoever writes one has it locked."""
    for file in folder.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError), open(file, "rb") as stream:
            if lock(stream.fileno()):
                file.unlink()


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Wait until no other process holds the lock ``path``, then hold it; yields its descriptor.

    Until then ``waiting`` is called now and then, and may raise to give up. The system frees the lock when the last
    process that has the descriptor ends: given to a child, it is held for as long as the child lives. A file system
    without locks (some network disks) makes nobody wait.
    """
    import fcntl  # not on Windows

    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(path, "w") as stream:
            held = False
            with contextlib.suppress(BlockingIOError, FileNotFoundError):  # another process has it, or removed the file
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno not in NO_LOCKS:
                        raise
                held = os.path.samestat(os.fstat(stream.fileno()), path.stat())
            if held:
                yield stream.fileno()
                return
        waiting()
        time.sleep(0.2)


def fingerprint(*parts: object) -> str:
    """Twelve letters that change with the content: bytes and arrays as they are, anything else by its ``repr``.

    Those of one part are in checkpoints, cells and runs that exist: not to be changed.
    """
    digest = hashlib.sha256()
    for number, part in enumerate(parts):
        content = part.tobytes() if hasattr(part, "tobytes") else part
        digest.update(b"\0" * (number > 0))
        digest.update(content if isinstance(content, bytes) else repr(content).encode())
    return digest.hexdigest()[:12]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned; a bar inside a cell is escaped."""
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |\n"
        for line in cells
    )


def write_text(path: Path, text: str) -> None:
    """Text in UTF-8."""
    with replacing(path) as temporary:
        # A name of a file that is no valid text is escaped, which JSON understands.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: object) -> None:
    """Content as indented JSON; not-a-number is refused because JSON has none."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_array(path: Path, array: np.ndarray) -> Path:
    """An array as ``.npy``; the path."""
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        np.save(stream, array)
    return path


def write_csv(path: Path, rows: list[dict]) -> Path:
    """Rows as a CSV file with a header; a cell is empty where a row lacks a key of another."""
    with replacing(path) as temporary, open(temporary, "w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path

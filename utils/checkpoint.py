"""One file that says everything about a run: written whole or not at all, read without running any code in it."""

import contextlib
import hashlib
import itertools
import os
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from utils.errors import UserError, exhausted
from utils.files import replacing

RESERVED = ("tensorboard", "previous")  # folders beside the checkpoints
NOT_CHECKPOINTS = {".csv", ".json", ".tmp", ".png", ".log", ".md", ".txt", ".yaml"}
BEST = ".best"  # ends the name of the checkpoint of a run's best epoch
SAMPLES = ".samples"  # ends the name of the folder of a run's pictures
BESIDE = (".csv", SAMPLES, ".yaml", BEST)  # what a run has beside its checkpoint
# Names that reproduce.py gives to checkpoints; ten decimal digits, as one hash in a hundred has, may be a user's date.
OF_A_GROUP = re.compile(r".+-(?!\d{10})[0-9a-f]{10}")
MAGIC_BYTES = (b"PK", b"\x80\x02")  # of the files that torch.save writes, today and before 2020
LONGEST_NAME = 200  # bytes: file systems take 255, and results add to it


def path_of(folder: str | Path, dataset: str, name: str, reading: bool = False) -> Path:
    """``<folder>/<dataset>/<name>``, the place of the published release.

    Only for ``reading``: a name in ``previous/``, of a run that was moved there, and that of a best epoch.
    """
    given, name = name, name.removeprefix("previous/") if reading else name
    if not name or Path(name).name != name:
        raise UserError(f"--model-name {given!r}: expected a plain file name, without folders")
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise UserError(f"--model-name {name[:30]}...: expected at most {LONGEST_NAME} bytes")
    if Path(name).suffix.lower() in NOT_CHECKPOINTS or name.startswith("."):
        endings = ", ".join(sorted(NOT_CHECKPOINTS))
        raise UserError(f"--model-name {name!r}: expected a name that begins with no dot and ends in none of {endings}")
    if name.endswith((BEST, SAMPLES)) and not reading:
        raise UserError(f"--model-name {name!r}: a run {Path(name).stem} would have that beside it: choose another")
    path = Path(folder) / dataset / given
    if name in RESERVED or path.is_dir():
        raise UserError(f"--model-name {name!r}: {path} is a folder, for curves or earlier runs: choose another name")
    return path


@contextlib.contextmanager
def exclusive_run(path: Path, main_process: bool = True) -> Iterator[None]:
    """Nobody else trains under this name while the block lasts, else UserError; no trace of the lock is left behind.

    Of several processes of the same training one is the ``main_process``, the others pass.
    """
    if not main_process:
        yield
        return
    created = [folder for folder in path.parents if not folder.exists()]
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock.acquire(timeout=0):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # Windows: the lock is still open
                    os.unlink(lock.lock_file)
    except Timeout as error:
        raise UserError(
            f"{path}: another process is training under this name: wait until it ends, or choose another --model-name"
        ) from error
    finally:
        for folder in created:  # the training may have ended before it wrote anything
            with contextlib.suppress(OSError):
                folder.rmdir()


def save(path: Path, record: dict) -> None:
    """Write a record of plain values and tensors; a run killed at any moment leaves the old file or the new one."""
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        try:
            torch.save(record, stream)
        except RuntimeError as error:  # of the archive that could not be completed
            cause = error.__context__
            raise (cause if isinstance(cause, OSError) else error) from None  # of the full disk


def load(path: Path) -> dict:
    """What ``save`` or torch.save wrote. Raises UserError: no such file, or one that is damaged or not a checkpoint."""
    if path.is_dir() and (inside := available(path)):
        raise UserError(f"{path}: a folder, expected a checkpoint, as those in it: {', '.join(inside)}")
    if not path.is_file():
        run_folder = path.parent.parent if path.parent.name == "previous" else path.parent
        others = available(run_folder) + [f"previous/{name}" for name in available(run_folder / "previous")]
        hint = f"there are: {', '.join(others)}" if others else "none has been trained yet: see train.py --help"
        raise UserError(f"{path}: no such checkpoint (--checkpoint, --dataset, --model-name); {hint}")
    try:
        record = read_tensors(path)
    except Exception as error:  # a damaged file can fail anywhere in the zip, the pickle or a tensor
        if exhausted(error):
            raise
        raise damaged(path, f"not a checkpoint, or a damaged one ({type(error).__name__})") from error
    if isinstance(record, dict) and record:
        return dict(record)
    raise UserError(f"{path}: not a checkpoint of train.py (it holds a {type(record).__name__})")


def read_tensors(path: Path) -> Any:
    """What torch.save wrote, on the CPU. Its checksums, which torch.load ignores, are compared; no code in it is run.

    Raises whatever a damaged file makes fail.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise zipfile.BadZipFile("compressed")  # torch.save compresses nothing
            if (wrong := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{wrong} has changed since it was written")
    return torch.load(path, map_location="cpu", weights_only=True)


def require_digest(path: Path) -> None:
    """Raises ValueError where a file's name ends in the beginning of its SHA-256, as torch.hub names it, and lies."""
    if named := re.search(r"-([0-9a-f]{8,})\.pth$", path.name):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if not digest.startswith(named[1]):
            raise ValueError(f"damaged: its SHA-256 begins with {digest[:8]}, expected {named[1]}")


def damaged(path: Path, reason: str) -> UserError:
    """The error about a checkpoint that cannot be used; it names the newest earlier run of that name that can."""
    stamped = re.compile(re.escape(path.name) + r"-\d{8}-\d{6}(-\d+)?")
    earlier = [file for file in path.parent.glob("previous/*") if stamped.fullmatch(file.name)]
    for file in sorted(earlier, key=lambda each: each.stat().st_mtime, reverse=True):
        with contextlib.suppress(Exception):
            read_tensors(file)
            return UserError(f"{path}: {reason}: the newest good one is {file}")
    return UserError(f"{path}: {reason}: train again")


def available(folder: Path, groups: bool = True) -> list[str]:
    """Names of the checkpoints in a folder, the newest first; not ``groups``: none of reproduce.py's, no best epoch."""
    found = []
    for file in folder.glob("[!.]*"):
        if file.is_file() and file.suffix.lower() not in NOT_CHECKPOINTS:
            with contextlib.suppress(OSError), open(file, "rb") as stream:
                if stream.read(2) in MAGIC_BYTES:  # as the files of torch.save begin
                    found.append((file.stat().st_mtime, file.name))
    names = [name for _, name in sorted(found, key=lambda each: each[0], reverse=True)]
    return [name for name in names if groups or not (name.endswith(BEST) or OF_A_GROUP.fullmatch(name))]


def not_finite(weights: dict[str, torch.Tensor]) -> list[str]:
    """The names of the tensors that hold an infinite number or one that is not a number."""
    return [key for key, value in weights.items() if not torch.isfinite(value).all()]


def archive_previous_run(path: Path) -> Path | None:
    """Move an earlier run's checkpoint and what is beside it into ``previous/``, so that no run is ever overwritten.

    Its curves stay beside those of other runs, under the new name.
    """
    if not path.exists():
        return None
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(path.stat().st_mtime))
    folder = path.parent / "previous"
    folder.mkdir(exist_ok=True)
    names = (f"{path.name}-{stamp}{f'-{number}' if number > 1 else ''}" for number in itertools.count(1))
    target = next(folder / name for name in names if not (folder / name).exists())
    if path.is_symlink():  # which may be relative to its folder
        target.symlink_to(path.resolve())
        path.unlink()
    else:
        path.rename(target)
    for ending in BESIDE:
        if (beside := path.with_name(path.name + ending)).exists():
            beside.rename(target.with_name(target.name + ending))
    curves = path.parent / "tensorboard" / path.name
    if curves.is_dir():
        curves.rename(curves.with_name(target.name))
    return target

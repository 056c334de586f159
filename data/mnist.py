"""MNIST and Fashion-MNIST from IDX files, and scikit-learn's digits; all resized to 32x32 grey images."""

import contextlib
import gzip
import io
import math
import os
import shutil
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.base import Dataset
from utils.errors import UserError

IMAGE_SIZE = 32
DIGITS_TEST_SIZE = 360  # one fifth of the 1,797
FASHION_CLASSES = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
]  # fmt: skip
DIGIT_CLASSES = [str(digit) for digit in range(10)]
TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}  # its classes

# The official files' first ten labels, by which one data set's files are not taken for the other's: they have the same
# names and sizes.
FIRST_LABELS = {
    "mnist": {"train": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "t10k": [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]},
    "fashion-mnist": {"train": [9, 0, 0, 3, 0, 2, 7, 2, 5, 5], "t10k": [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]},
}


def read_idx(path: Path) -> np.ndarray:
    """The array of unsigned bytes in an IDX file, plain or gzip.

    Raises:
        UserError: not an IDX file of bytes, or shorter than its header says.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip file ({error}): download it again") from error
    # Two zero bytes, the type (8: unsigned byte), the number of dimensions, then each size as a big-endian int32.
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise UserError(
            f"{path}: not an IDX file of bytes (it begins with {content[:4].hex() or 'nothing'}): replace it"
        )
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise UserError(f"{path}: truncated IDX file: the header alone has {header} bytes, found {len(content)}")
    shape = struct.unpack(f">{content[3]}I", content[4:header])
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise UserError(
            f"{path}: truncated or damaged IDX file: expected {expected} bytes for {shape}, found {len(content)}; "
            "download it again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def find_idx(name: str, kind: str, path: Path) -> tuple[Path, Path] | None:
    """Image and label file of one half ("train" or "t10k"), plain or .gz: torchvision's layout, or flat."""
    folder = TORCHVISION[name]
    for root in (path / folder / "raw", path / name / folder / "raw", path / name, path / "raw", path):
        found = []
        for stem in (f"{kind}-images-idx3-ubyte", f"{kind}-labels-idx1-ubyte"):
            found += [file for file in (root / stem, root / f"{stem}.gz") if file.is_file()][:1]
        if len(found) == 2:
            return found[0], found[1]
    return None


def download(name: str, path: Path) -> None:
    """Let torchvision download the four files, all or none of them.

    Raises:
        UserError: it could not; says what to put where, and what needs no download.
    """
    # Imported where it is needed, here and elsewhere: it takes as long as PyTorch, and --help should not.
    from torchvision import datasets

    folder = TORCHVISION[name]
    created = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path, prefix=".download-") as temporary:
            print(f"{name} is not in {path}: downloading it")
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                getattr(datasets, folder)(temporary, download=True)
            shutil.rmtree(path / folder, ignore_errors=True)
            os.replace(Path(temporary) / folder, path / folder)
    except Exception as error:  # torchvision raises whatever the network, the disk or the archive raised
        if created:
            shutil.rmtree(path, ignore_errors=True)
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{name}: no IDX files in {path} (--data-path) and the download failed ({reason}). Put the four files "
            f"{{train,t10k}}-{{images-idx3,labels-idx1}}-ubyte[.gz] into {path / folder / 'raw'} or {path}, or use "
            "--dataset digits or --dataset shape, which need no download"
        ) from error


def load(name: str, split: str, path: Path) -> Dataset:
    """The 60,000 training ("train") or 10,000 test images ("valid", "test") of "mnist" or "fashion-mnist"."""
    kind = "train" if split == "train" else "t10k"
    files = find_idx(name, kind, path)
    if files is None:
        download(name, path)
        files = find_idx(name, kind, path)
    images, labels = (read_idx(file) for file in files)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise UserError(
            f"{files[0]}: images of shape {images.shape} do not match the labels {labels.shape} of {files[1]}"
        )
    other = "mnist" if name == "fashion-mnist" else "fashion-mnist"
    if labels[:10].tolist() == FIRST_LABELS[other][kind]:
        raise UserError(
            f"{files[1]}: these are the labels of {other}, expected {name} (--dataset, --data-path): "
            f"use --dataset {other}, or another folder"
        )
    classes = FASHION_CLASSES if name == "fashion-mnist" else DIGIT_CLASSES
    return Dataset(resized(torch.tensor(images)[:, None]), torch.tensor(labels).long(), classes)


def load_digits(split: str) -> Dataset:
    """scikit-learn's 8x8 digits, 16 grey levels: 1,437 for "train", 360 for "valid" and "test"."""
    from sklearn.datasets import load_digits as sklearn_digits

    pixels, labels = sklearn_digits(return_X_y=True)
    images = torch.tensor(np.round(pixels * (255 / 16)), dtype=torch.uint8).view(-1, 1, 8, 8)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    order = order[DIGITS_TEST_SIZE:] if split == "train" else order[:DIGITS_TEST_SIZE]
    return Dataset(resized(images[order]), torch.tensor(labels)[order].long(), DIGIT_CLASSES)


def resized(images: Tensor) -> Tensor:
    """uint8 images to 32x32, bilinear with antialiasing."""
    from torchvision.transforms.v2.functional import resize

    return resize(images, [IMAGE_SIZE, IMAGE_SIZE], antialias=True)

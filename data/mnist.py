"""MNIST and Fashion-MNIST from IDX files, resized to 32x32 grey images."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.base import Dataset, LoadOptions
from data.download import download
from data.unpacking import refuse_larger
from utils.errors import UserError

IMAGE_SIZE = 32
FASHION_CLASSES = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
]  # fmt: skip
DIGIT_CLASSES = [str(digit) for digit in range(10)]
TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}  # its classes, and the folders they write
# The official files' first ten labels: the two data sets have files of the same names and sizes.
FIRST_LABELS = {
    "mnist": {"train": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "t10k": [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]},
    "fashion-mnist": {"train": [9, 0, 0, 3, 0, 2, 7, 2, 5, 5], "t10k": [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]},
}


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file of unsigned bytes, plain or gzip. Raises UserError for any other or a damaged file."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
            # Two zero bytes, the type (8: unsigned byte), the number of dimensions, then each as a big-endian int32.
            magic = stream.read(4)
            if len(magic) < 4 or magic[:3] != b"\x00\x00\x08":
                found = magic.hex() or "nothing"
                raise UserError(f"{path}: not an IDX file of bytes (it begins with {found}): replace it")
            sizes = stream.read(4 * magic[3])
            shape = struct.unpack(f">{len(sizes) // 4}I", sizes[: len(sizes) // 4 * 4])
            refuse_larger(path, math.prod(shape))
            content = stream.read(math.prod(shape) + 1)  # one byte more: there is to be none
            if len(shape) != magic[3] or len(content) != math.prod(shape):
                found = f"found {len(content)} bytes{' and more' * (len(content) > math.prod(shape))}"
                raise UserError(f"{path}: truncated IDX file: {found} for shape {shape}: download it again")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip file ({error}): download it again") from error
    return np.frombuffer(content, np.uint8).reshape(shape)


def find_idx(name: str, kind: str, path: Path) -> tuple[Path, Path] | None:
    """Image and label file of one half ("train" or "t10k"), plain or .gz: torchvision's layout, or flat.

    Some sites write ``.idx3`` for ``-idx3``, some put each file into a folder of the same name.
    """
    folder = TORCHVISION[name]
    for root in (path / place for place in (f"{folder}/raw", folder, f"{name}/{folder}/raw", name, "raw", "")):
        found = []
        for stem, dimensions in (("images", 3), ("labels", 1)):
            names = [f"{kind}-{stem}{separator}idx{dimensions}-ubyte" for separator in "-."]
            files = [part / name for part in (root, *(root / name for name in names)) for name in names]
            places = [place for file in files for place in (file, file.with_name(f"{file.name}.gz"))]
            found += [place for place in places if place.is_file()][:1]
        if len(found) == 2:
            return found[0], found[1]
    return None


def load(name: str, split: str, path: Path, options: LoadOptions) -> Dataset:
    """The 60,000 training ("train") or 10,000 test images ("valid", "test"). UserError for files of the other."""
    kind = "train" if split == "train" else "t10k"
    files = find_idx(name, kind, path)
    if files is None:
        raw = path / TORCHVISION[name] / "raw"
        needed = f"the four files {{train,t10k}}-{{images-idx3,labels-idx1}}-ubyte[.gz] into {raw} or {path}"
        download(name, path, TORCHVISION[name], needed)
        files = find_idx(name, kind, path)
        assert files is not None  # torchvision has written them
    images, labels = (read_idx(file) for file in files)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        found = f"images of shape {images.shape} do not match the labels {labels.shape} of {files[1]}"
        raise UserError(f"{files[0]}: {found}")
    if images.size == 0:
        raise UserError(f"{files[0]}: an array of shape {images.shape} holds no images: download it again")
    if labels.max() >= len(DIGIT_CLASSES):
        raise UserError(f"{files[1]}: found the label {labels.max()}, expected 0 to 9: download it again")
    other = "mnist" if name == "fashion-mnist" else "fashion-mnist"
    if labels[:10].tolist() == FIRST_LABELS[other][kind]:
        found = f"these are the labels of {other}, expected {name} (--dataset, --data-path)"
        raise UserError(f"{files[1]}: {found}: use --dataset {other}, or another folder")
    classes = FASHION_CLASSES if name == "fashion-mnist" else DIGIT_CLASSES
    return Dataset(resized(torch.tensor(images)[:, None]), torch.tensor(labels).long(), classes)


def resized(images: Tensor) -> Tensor:
    """uint8 images ``(N, C, H, W)`` to 32x32, bilinear with antialiasing."""
    from torchvision.transforms.v2.functional import resize

    return resize(images, [IMAGE_SIZE, IMAGE_SIZE], antialias=True)

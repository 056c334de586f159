"""CIFAR-10 (Krizhevsky 2009), read and downloaded by torchvision: 32x32 RGB images of ten classes."""

from pathlib import Path

import torch

from data.base import Dataset, LoadOptions
from data.download import download
from utils.errors import UserError

FOLDER = "cifar-10-batches-py"  # as in the archive of its site and in torchvision


def load(split: str, path: Path, options: LoadOptions) -> Dataset:
    """The 50,000 training ("train") or 10,000 test images ("valid", "test"). Raises UserError for damaged files."""
    from torchvision.datasets import CIFAR10

    root = next((root for root in (path, path / "cifar10") if (root / FOLDER).is_dir()), None)
    if root is None:
        needed = f"the files of cifar-10-python.tar.gz into {path / FOLDER}"
        download("cifar10", path, "CIFAR10", needed)
        root = path
    try:
        images = CIFAR10(root, train=split == "train")
    except Exception as error:  # a checksum that differs, or a pickle of something else
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{root / FOLDER}: not the files of CIFAR-10 ({reason}): download them again") from error
    pixels = torch.from_numpy(images.data).permute(0, 3, 1, 2).contiguous()
    return Dataset(pixels, torch.tensor(images.targets), images.classes)

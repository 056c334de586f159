"""scikit-learn's 1,797 handwritten digits, resized to 32x32: real images that need no download."""

from pathlib import Path

import numpy as np
import torch

from data.base import Dataset, LoadOptions
from data.mnist import DIGIT_CLASSES, resized

TEST_SIZE = 360  # one fifth


def load(split: str, path: Path, options: LoadOptions) -> Dataset:
    """8x8 pixels of 16 grey levels: 1,437 images for "train", 360 for "valid" and "test"."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(np.round(pixels * (255 / 16)), dtype=torch.uint8).view(-1, 1, 8, 8)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    order = order[TEST_SIZE:] if split == "train" else order[:TEST_SIZE]
    return Dataset(resized(images[order]), torch.tensor(labels)[order].long(), DIGIT_CLASSES)

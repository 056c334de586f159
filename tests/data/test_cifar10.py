"""CIFAR-10 from the files of its archive, with other pixels."""

import pickle

import numpy as np
import pytest
import torch
import torchvision

import data
from utils.errors import UserError

CLASSES = [f"class {index}" for index in range(10)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Six files of 4 images each, whose checksums are not checked."""
    dataset = torchvision.datasets.CIFAR10
    for key in ("train_list", "test_list"):
        monkeypatch.setattr(dataset, key, [(name, None) for name, _ in getattr(dataset, key)])
    monkeypatch.setattr(dataset, "meta", dataset.meta | {"md5": None})
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for index, (name, _) in enumerate(dataset.train_list + dataset.test_list):
        pixels = np.random.default_rng(index).integers(0, 256, (4, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [index, 7, 8, 9]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": CLASSES}))
    return folder


def test_pixels_and_labels(folder):
    train, test = (data.load("cifar10", split, folder.parent) for split in ("train", "test"))
    assert train.store.shape == (20, 3, 32, 32) and test.store.shape == (4, 3, 32, 32)
    # A row holds the red, then the green, then the blue values, each row by row.
    expected = np.random.default_rng(5).integers(0, 256, (4, 3072), dtype=np.uint8).reshape(4, 3, 32, 32)
    assert torch.equal(test.store, torch.from_numpy(expected))
    assert test.labels.tolist() == [5, 7, 8, 9] and test.classes == CLASSES


def test_damaged_files_are_named(folder):
    (folder / "data_batch_3").write_bytes(b"damaged")
    with pytest.raises(UserError, match="cifar-10-batches-py: not the files of CIFAR-10"):
        data.load("cifar10", "train", folder.parent)

"""IDX files in every layout, the resize, and what a user is told when they are missing or damaged."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import data
from data import mnist
from utils.errors import UserError


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def pixels(num: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, 28, 28))


def write(folder, compressed: bool = False, kinds=("train", "t10k")):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, kind in enumerate(kinds):
        num = 20 if kind == "train" else 8
        for name, array in (("images-idx3", pixels(num, seed)), ("labels-idx1", np.arange(num) % 10)):
            content = idx(array)
            file = folder / f"{kind}-{name}-ubyte{'.gz' if compressed else ''}"
            file.write_bytes(gzip.compress(content) if compressed else content)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("layout", ["MNIST/raw", "mnist/MNIST/raw", "mnist", "raw", "."])
def test_every_layout_is_found(tmp_path, layout, compressed):
    write(tmp_path / layout, compressed)
    train, test = (data.load("mnist", split, tmp_path) for split in ("train", "test"))
    assert train.store.shape == (20, 1, 32, 32) and test.store.shape == (8, 1, 32, 32)
    assert train.labels.tolist() == [label % 10 for label in range(20)]


@pytest.mark.parametrize(
    "name", ["{}-images.idx3-ubyte", "{0}-images-idx3-ubyte/{0}-images.idx3-ubyte", "MNIST/{}-images.idx3-ubyte"]
)
def test_file_names_of_other_sites(tmp_path, name):
    write(tmp_path)
    for kind in ("train", "t10k"):
        for what, dimensions in (("images", "idx3"), ("labels", "idx1")):
            file = tmp_path / f"{kind}-{what}-{dimensions}-ubyte"
            target = tmp_path / name.format(kind).replace("images", what).replace("idx3", dimensions)
            content = file.read_bytes()
            file.unlink()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    assert [len(data.load("mnist", split, tmp_path)) for split in ("train", "test")] == [20, 8]


def test_fashion_mnist_is_not_mnist(tmp_path):
    write(tmp_path / "FashionMNIST" / "raw")
    assert data.load("fashion-mnist", "valid", tmp_path).classes[9] == "Ankle boot"


@pytest.mark.parametrize(("name", "other"), [("mnist", "fashion-mnist"), ("fashion-mnist", "mnist")])
def test_the_files_of_the_other_data_set_are_refused(tmp_path, name, other):
    """Both have files of the same names and sizes; the official ones are told apart by their first labels."""
    write(tmp_path)
    labels = np.array([*mnist.FIRST_LABELS[other]["train"], *range(10)])
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(UserError, match=f"labels of {other}, expected {name}"):
        data.load(name, "train", tmp_path)
    assert len(data.load(other, "train", tmp_path)) == 20


def test_images_are_those_of_torchvision(tmp_path):
    """Same pixels as the released pipeline: Pillow's bilinear resize, then ToTensor."""
    write(tmp_path)
    ours = data.load("mnist", "train", tmp_path)
    transform = torchvision.transforms.Compose(
        [torchvision.transforms.Resize([32, 32]), torchvision.transforms.ToTensor()]
    )
    expected = torch.stack([transform(Image.fromarray(image.astype(np.uint8))) for image in pixels(20, 0)])
    assert torch.equal(ours[:], expected)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (idx(pixels(20, 0))[:-100], "truncated"),
        (idx(pixels(20, 0))[:10], "truncated"),
        (b"<html>404</html>", "not an IDX file"),
        (b"", "not an IDX file"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, words):
    write(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(UserError, match=f"train-images-idx3-ubyte.*{words}"):
        data.load("mnist", "train", tmp_path)


def test_a_truncated_gzip_is_named(tmp_path):
    write(tmp_path, compressed=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz.*gzip"):
        data.load("mnist", "train", tmp_path)


def test_images_and_labels_of_different_number_are_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(19)))
    with pytest.raises(UserError, match="do not match"):
        data.load("mnist", "train", tmp_path)


def test_a_failed_download_says_what_to_do_and_leaves_nothing(tmp_path, monkeypatch):
    def unreachable(root, download):
        torch.save({}, f"{root}/half-written")
        raise RuntimeError("no network")

    monkeypatch.setattr(torchvision.datasets, "MNIST", unreachable)
    target = tmp_path / "datasets"
    with pytest.raises(UserError, match=r"no network.*t10k.*--dataset digits.*shape"):
        data.load("mnist", "train", target)
    assert not target.exists()


def test_a_download_arrives_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda root, download: write(Path(root) / "MNIST" / "raw"))
    assert len(data.load("mnist", "train", tmp_path)) == 20
    assert [entry.name for entry in tmp_path.iterdir()] == ["MNIST"]


def test_digits_are_scikit_learns():
    train, test = data.load("digits", "train"), data.load("digits", "test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.store.shape[1:] == (1, 32, 32) and train.store.dtype == torch.uint8
    assert train.store.max() == 255 and train.store.min() == 0
    assert torch.cat([train.labels, test.labels]).bincount().tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180
    ]  # fmt: skip
    overlap = {image.numpy().tobytes() for image in train.store} & {image.numpy().tobytes() for image in test.store}
    assert not overlap

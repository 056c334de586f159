"""The contract, for every row of the table: a new data set is tested when it stands there."""

from pathlib import Path

import pytest
import torch
import torchvision

import data
import models
from data.base import Dataset
from data.download import download
from utils.errors import UserError

GENERATED = [name for name, info in data.DATASETS.items() if not info.on_disk]
ON_DISK = [name for name, info in data.DATASETS.items() if info.on_disk]


@pytest.mark.parametrize("name", data.DATASETS)
def test_a_model_can_be_built_for_it(name):
    described, info = data.describe(name), data.DATASETS[name]
    assert described["name"] == name and described["channels"] in info.channels
    config = {key: described[key] for key in ("channels", "latent_dim", "architecture")}
    x = torch.rand(2, described["channels"], *[described["image_size"]] * 2)
    assert models.build("ae", **config)(x).shape == x.shape


@pytest.mark.parametrize("name", GENERATED)
def test_the_contract(name):
    described = data.describe(name)
    train, test = (data.load(name, split, size=50) for split in ("train", "test"))
    assert len(train) == len(train.store) == 50 and train.store.shape[1:] == test.store.shape[1:]
    images = train[:]
    assert images.shape == (50, described["channels"], *[described["image_size"]] * 2)
    assert images.dtype == torch.float32 and images.min() >= 0 and images.max() <= 1
    assert torch.equal(torch.cat(list(train.batches(8))), images)
    assert torch.equal(train.to_images(train.store[3:5]), images[3:5])
    assert torch.equal(train[torch.tensor([7, 2])], images[[7, 2]])
    assert torch.equal(train.first(4)[:], images[:4]) and len(train.first(4)) == 4
    assert (train.labels is not None) == data.DATASETS[name].labels
    if train.labels is not None:
        assert train.labels.shape == (50,) and int(train.labels.max()) < len(train.classes)
        assert torch.equal(train.first(4).labels, train.labels[:4])
    orders = [train.order(torch.Generator().manual_seed(seed)) for seed in (1, 1)]
    assert torch.equal(*orders) and torch.equal(orders[0].sort().values, torch.arange(50))


@pytest.mark.parametrize("name", GENERATED)
def test_sizes_of_the_splits(name):
    assert len(data.load(name, "train")) == data.DATASETS[name].train_size


@pytest.mark.parametrize("name", ON_DISK)
def test_nothing_on_the_disk_and_no_download(name, tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("data.download.tempfile.TemporaryDirectory", unreachable)
    with pytest.raises(UserError, match="--data-path"):
        data.load(name, "train", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_download_keeps_what_lies_there(tmp_path, monkeypatch):
    def fetch(target, download):
        (Path(target) / "x" / "raw").mkdir(parents=True)
        (Path(target) / "x" / "raw" / "new").write_text("new")

    monkeypatch.setattr(torchvision.datasets, "MNIST", fetch)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "own").write_text("kept")
    download("x", tmp_path, "MNIST", "x there")
    found = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file())
    assert found == ["x/own", "x/raw/new"]


def test_an_order_is_a_permutation_of_the_generator():
    dataset = Dataset(torch.zeros(19, 1, 4, 4, dtype=torch.uint8))
    order = dataset.order(torch.Generator().manual_seed(3))
    assert torch.equal(order, torch.randperm(19, generator=torch.Generator().manual_seed(3)))


def test_more_images_than_there_are():
    with pytest.raises(UserError, match=r"--train-size 1438.*1437"):
        data.load("digits", "train", size=1438)


def test_names_and_sizes_that_a_data_set_does_not_have():
    for arguments, words in (
        (("mnits",), "choose from mnist"),
        (("mnist", 64), "--image-size 64.*32"),
        (("celeba", None, 1), "--channels 1"),
        (("folder", 31), "32 to 256"),
    ):
        with pytest.raises(UserError, match=words):
            data.describe(*arguments)

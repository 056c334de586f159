"""Folders of images: their splits, their labels, and what is no folder of images."""

import hashlib
import os

import pytest
from pictures import fill, noise

import data
from data import folder
from utils.errors import UserError


def test_splits_are_disjoint_and_complete(tmp_path):
    fill(tmp_path, 100)
    parts = {split: data.load("folder", split, tmp_path, image_size=32) for split in ("train", "valid", "test")}
    assert 65 <= len(parts["train"]) <= 93 and len(parts["valid"]) > 1 and len(parts["test"]) > 1
    seen = [image.numpy().tobytes() for part in parts.values() for image in part.store]
    assert len(seen) == len(set(seen)) == 100
    assert len(list((tmp_path / ".cache").iterdir())) == 2  # one cache and its index for all three


def test_an_image_stays_in_its_split_when_others_come_or_go(tmp_path):
    """Test images of a trained model must not become training images because somebody added one more."""
    fill(tmp_path, 100)

    def split_of_each() -> dict[bytes, str]:
        parts = {split: data.load("folder", split, tmp_path, image_size=32) for split in ("train", "valid", "test")}
        return {image.numpy().tobytes(): split for split, part in parts.items() for image in part.store}

    before = split_of_each()
    noise(40, 50, 1000).save(tmp_path / "000a.png")
    (tmp_path / "050.png").unlink()
    after = split_of_each()
    assert len(before.keys() & after.keys()) == 99
    assert all(after[image] == before[image] for image in before.keys() & after.keys())


@pytest.mark.parametrize("fractions", [[0.5] * 10, [0.05] * 10, [0.15] * 10, [0.05, 0.15, 0.9]])
def test_no_split_is_empty_in_a_small_folder(fractions):
    parts = folder.split_of(fractions)
    counted = [fractions[parts[split]] for split in ("valid", "test", "train")]
    assert all(counted) and [*counted[0], *counted[1], *counted[2]] == fractions


def test_given_splits_and_labels_of_sub_folders(tmp_path):
    for split, num in (("train", 6), ("val", 3), ("test", 2)):
        for name in ("cat", "dog"):
            fill(tmp_path / split / name, num)
    train, valid, test = (data.load("folder", split, tmp_path) for split in ("train", "valid", "test"))
    assert (len(train), len(valid), len(test)) == (12, 6, 4)
    assert train.classes == ["cat", "dog"] and train.labels.bincount().tolist() == [6, 6]
    fill(tmp_path / "train", 1)  # one image outside the sub-folders: no labels
    assert data.load("folder", "train", tmp_path).labels is None


def test_given_splits_in_capitals(tmp_path):
    for split, num in (("Train", 6), ("TEST", 2)):
        fill(tmp_path / split / "cat", num)
        fill(tmp_path / split / "dog", 1)
    train, valid, test = (data.load("folder", split, tmp_path) for split in ("train", "valid", "test"))
    assert (len(train), len(valid), len(test)) == (7, 3, 3) and test.labels.bincount().tolist() == [2, 1]
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="has both Train and train"):
        data.load("folder", "train", tmp_path)


def test_labels_are_numbered_by_the_training_classes(tmp_path):
    for place in ("train/a", "train/b", "train/c", "test/b", "test/c"):
        fill(tmp_path / place, 2)
    train, test = (data.load("folder", split, tmp_path) for split in ("train", "test"))
    assert train.classes == test.classes == ["a", "b", "c"]
    assert sorted(test.labels.tolist()) == [1, 1, 2, 2]
    fill(tmp_path / "test" / "d", 1)
    with pytest.raises(UserError, match="'d' is no class of the training set, which has a, b, c"):
        data.load("folder", "test", tmp_path)


def test_a_link_back_up_lists_every_image_once(tmp_path):
    fill(tmp_path / "images")
    (tmp_path / "images" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert len(folder.list_images(tmp_path)) == 12


def test_a_name_that_is_no_text(tmp_path):
    fill(tmp_path)
    (tmp_path / "000.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    assert sum(len(data.load("folder", split, tmp_path)) for split in ("train", "valid", "test")) == 12


def test_too_few_good_images_to_split(tmp_path):
    fill(tmp_path, 2)
    for index in range(10):
        (tmp_path / f"broken-{index}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="2 of its 12 images can be decoded, need at least 10"):
        data.load("folder", "train", tmp_path, skip_corrupt=True)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "found nothing"),
        (lambda path: path.write_text("x"), "found a file"),
        (lambda path: path.mkdir(), "no images found"),
        (lambda path: fill(path, 3), "at least 10"),
        (lambda path: fill(path / "train", 3), "none of valid, val or test"),
    ],
)
def test_what_is_no_folder_of_images(tmp_path, make, words):
    make(tmp_path / "pictures")
    with pytest.raises(UserError, match=words):
        data.load("folder", "test", tmp_path / "pictures")


@pytest.mark.parametrize("image_size", [32, 48, 100, 256])
def test_any_size(tmp_path, image_size):
    fill(tmp_path, 10)
    assert data.load("folder", "train", tmp_path, image_size=image_size).store.shape[1:] == (3, image_size, image_size)


def test_the_fingerprint_tells_files_not_places(tmp_path):
    for place in ("a", "b"):
        fill(tmp_path / place, 3)
    before = data.fingerprint("folder", tmp_path / "a")
    assert before == data.fingerprint("folder", tmp_path / "b") and len(before) == 12
    (tmp_path / "b" / "000.png").rename(tmp_path / "b" / "0000.png")
    assert before != data.fingerprint("folder", tmp_path / "b")
    assert data.fingerprint("folder", tmp_path / "none") is None and data.fingerprint("mnist", tmp_path / "a") is None


def test_the_fingerprint_in_checkpoints_and_cells_that_exist(tmp_path):
    for name, size in (("b.png", 10), ("a.png", 3)):
        (tmp_path / name).write_bytes(bytes(size))
    assert data.fingerprint("folder", tmp_path) == hashlib.sha256(b"a.png\x003\nb.png\x0010\n").hexdigest()[:12]

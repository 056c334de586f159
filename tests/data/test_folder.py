"""Folders of images: every mode becomes grey or RGB, damaged files are named, the cache is whole and reused."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import data
from data import folder
from utils.errors import UserError


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth random RGB image."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def fill(path, num: int = 12, size=(40, 50)):
    path.mkdir(parents=True, exist_ok=True)
    for index in range(num):
        noise(*size, seed=index).save(path / f"{index:03}.png")


def test_every_mode_becomes_rgb_or_grey(tmp_path):
    base = noise(70, 64)
    base.save(tmp_path / "rgb.png")
    base.convert("L").save(tmp_path / "grey.png")
    base.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    base.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.gif")
    base.convert("RGBA").save(tmp_path / "rgba.png")
    base.convert("LA").save(tmp_path / "la.png")
    base.convert("1").save(tmp_path / "bilevel.png")
    Image.fromarray(np.asarray(base.convert("L"), dtype=np.uint16) * 257).save(tmp_path / "deep.png")
    grey = torch.from_numpy(np.array(folder.centre_square(base.convert("L"), 32))).float()
    for file in sorted(tmp_path.iterdir()):
        rgb = folder.decode(file, channels=3, image_size=32)
        single = folder.decode(file, channels=1, image_size=32)
        assert rgb.shape == (3, 32, 32) and single.shape == (1, 32, 32) and rgb.dtype == np.uint8, file
        if file.name != "bilevel.png":
            assert (torch.tensor(single[0]).float() - grey).abs().mean() < 4, file


def test_transparency_is_laid_on_white(tmp_path):
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 20, 10))
    image.save(tmp_path / "half.png")
    image.convert("P").save(tmp_path / "palette.png", transparency=image.convert("P").getpixel((0, 19)))
    for name in ("half.png", "palette.png"):
        pixels = folder.decode(tmp_path / name, channels=3, image_size=20)
        assert pixels[:, 19, 10].tolist() == [255, 255, 255], name
        assert pixels[:, 0, 10].tolist() == [0, 0, 255], name


def test_white_of_deep_images(tmp_path):
    """16 bits, 32 bits and floats: what a file does not say is told by its largest value."""
    ramp = np.linspace(0, 1, 32 * 32).reshape(32, 32)
    Image.fromarray((ramp * 200).astype(np.uint16)).save(tmp_path / "dark.png")  # 16 bits, nearly black
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "unit.tif")
    Image.fromarray((ramp * 255).astype(np.float32)).save(tmp_path / "byte.tif")
    Image.fromarray((ramp * 65535).astype(np.int32)).save(tmp_path / "word.tif")
    for name, white in (("dark.png", 200 / 65535), ("unit.tif", 1), ("byte.tif", 1), ("word.tif", 1)):
        pixels = folder.decode(tmp_path / name, channels=1, image_size=32)[0]
        assert np.abs(pixels - 255 * white * ramp).max() <= 1, name
    Image.fromarray((ramp * 1.03 - 0.01).astype(np.float32)).save(tmp_path / "overshoot.tif")
    pixels = folder.decode(tmp_path / "overshoot.tif", channels=1, image_size=32)[0]
    assert np.abs(pixels - 255 * np.clip(ramp * 1.03 - 0.01, 0, 1)).max() <= 1
    for values in (np.full((8, 8), np.nan), ramp - 0.5, ramp * 1e6):
        Image.fromarray(values.astype(np.float32)).save(tmp_path / "bad.tif")
        with pytest.raises(ValueError, match="expected 0 to 1, to 255 or to 65535"):
            folder.decode(tmp_path / "bad.tif", channels=1, image_size=8)


def test_a_rotated_photograph_is_shown_upright(tmp_path):
    upright = Image.new("RGB", (60, 60), "black")
    upright.paste("white", (0, 0, 60, 20))  # white at the top
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    pixels = folder.decode(tmp_path / "turned.png", channels=1, image_size=32)[0]
    assert pixels[2].mean() > 250 and pixels[29].mean() < 5


def test_the_centre_is_kept(tmp_path):
    wide = Image.new("RGB", (90, 30), "red")
    wide.paste("blue", (30, 0, 60, 30))
    pixels = np.asarray(folder.centre_square(wide, 10))
    assert (pixels[:, 1:-1] == [0, 0, 255]).all()


def test_splits_are_disjoint_and_complete(tmp_path):
    fill(tmp_path, 100)
    parts = {split: data.load("folder", split, tmp_path, image_size=32) for split in ("train", "valid", "test")}
    assert 65 <= len(parts["train"]) <= 93 and len(parts["valid"]) > 1 and len(parts["test"]) > 1
    seen = [image.numpy().tobytes() for part in parts.values() for image in part.store]
    assert len(seen) == len(set(seen)) == 100
    assert len(list((tmp_path / ".cache").glob("*.npy"))) == 2  # one cache and its list for all three


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


@pytest.mark.parametrize("lots", [[0.5] * 10, [0.05] * 10, [0.15] * 10, [0.05, 0.15, 0.9]])
def test_no_split_is_empty_in_a_small_folder(lots):
    parts = folder.split_of(lots)
    counted = [lots[parts[split]] for split in ("valid", "test", "train")]
    assert all(counted) and [*counted[0], *counted[1], *counted[2]] == lots


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


def test_the_cache_is_reused_until_a_file_changes(tmp_path, monkeypatch):
    fill(tmp_path)
    first = data.load("folder", "train", tmp_path)
    decoded = []
    original = folder.decode
    monkeypatch.setattr(folder, "decode", lambda *arguments: decoded.append(1) or original(*arguments))
    assert torch.equal(data.load("folder", "train", tmp_path).store, first.store) and not decoded
    data.load("folder", "train", tmp_path, image_size=32)
    assert len(decoded) == 12  # another size is another cache
    noise(9, 9, 99).save(tmp_path / "new.png")
    data.load("folder", "train", tmp_path)
    assert len(decoded) == 12 + 13


@pytest.mark.parametrize("corrupt", [False, True])
def test_decoded_images_are_mapped_from_the_cache_not_read(tmp_path, corrupt):
    """Their memory belongs to the cache's file: what does not fit is read again from the disk, not swapped."""
    fill(tmp_path)
    if corrupt:
        (tmp_path / "004.png").write_bytes(b"damaged")
    images = data.load("folder", "train", tmp_path, image_size=32, skip_corrupt=corrupt).store
    (cache,) = [file for file in (tmp_path / ".cache").iterdir() if ".kept" not in file.name]
    (place,) = [
        line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(cache))
    ]
    first, last = (int(address, 16) for address in place.split("-"))
    assert first <= images.data_ptr() and images.data_ptr() + images.nbytes <= last


def test_a_corrupt_image_is_named_and_can_be_skipped(tmp_path, capsys):
    fill(tmp_path, 20)
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 not really")
    content = (tmp_path / "003.png").read_bytes()
    (tmp_path / "003.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"(bad\.jpg|003\.png).*--skip-corrupt"):
        data.load("folder", "train", tmp_path)
    assert not list((tmp_path / ".cache").iterdir())  # nothing half-written
    parts = [data.load("folder", split, tmp_path, skip_corrupt=True) for split in ("train", "valid", "test")]
    assert capsys.readouterr().out.count("2 of 21 images cannot be decoded and are left out") == 3
    (cache,) = [file for file in (tmp_path / ".cache").iterdir() if ".kept" not in file.name]
    assert cache.stat().st_mode & 0o777 == (tmp_path / "bad.jpg").stat().st_mode & 0o777
    assert sum(map(len, parts)) == 19
    whole = {folder.decode(file, 3, 64).tobytes() for file in tmp_path.glob("0*.png") if file.name != "003.png"}
    assert {image.numpy().tobytes() for part in parts for image in part.store} == whole


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


def celeba(path, nested: bool):
    root = path / "celeba" if nested else path
    fill(root / "img_align_celeba", 6, (178, 218))
    lines = [f"{index:03}.png {part}" for index, part in enumerate((0, 0, 0, 1, 2, 2))]
    (root / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("nested", [True, False])
def test_celeba_as_torchvision_lays_it_out(tmp_path, nested):
    root = celeba(tmp_path, nested)
    sizes = {split: len(data.load("celeba", split, tmp_path)) for split in ("train", "valid", "test")}
    assert sizes == {"train": 3, "valid": 1, "test": 2}
    transform = torchvision.transforms.Compose(
        [
            torchvision.transforms.CenterCrop(148),
            torchvision.transforms.Resize([64, 64]),
            torchvision.transforms.ToTensor(),
        ]
    )
    expected = transform(Image.open(root / "img_align_celeba" / "003.png"))
    ours = data.load("celeba", "valid", tmp_path)[:1][0]
    assert torch.equal(ours, expected)


def test_celeba_in_the_layout_of_the_released_code(tmp_path):
    for split, num in (("train", 4), ("val", 3), ("test", 2)):
        fill(tmp_path / split, num, (178, 218))
    assert [len(data.load("celeba", split, tmp_path)) for split in ("train", "valid", "test")] == [4, 3, 2]


def test_celeba_that_is_not_whole(tmp_path):
    root = celeba(tmp_path, True)
    (root / "img_align_celeba" / "001.png").unlink()
    with pytest.raises(UserError, match=r"001\.png: not found.*1 of 3"):
        data.load("celeba", "train", tmp_path)
    (root / "list_eval_partition.txt").write_text("000.png zero\n")
    with pytest.raises(UserError, match="line 1"):
        data.load("celeba", "train", tmp_path)
    (root / "list_eval_partition.txt").unlink()
    with pytest.raises(UserError, match=r"list_eval_partition\.txt: not found"):
        data.load("celeba", "train", tmp_path)


def test_celeba_that_cannot_be_downloaded(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise RuntimeError("quota exceeded")

    monkeypatch.setattr(torchvision.datasets, "CelebA", unreachable)
    with pytest.raises(UserError, match=r"quota exceeded.*img_align_celeba.*train/, val/ and test/"):
        data.load("celeba", "train", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_celeba_of_the_wrong_size_is_named(tmp_path):
    root = celeba(tmp_path, True)
    noise(60, 60).save(root / "img_align_celeba" / "001.png")
    with pytest.raises(UserError, match=r"001\.png.*60x60 pixels, expected at least 148x148"):
        data.load("celeba", "train", tmp_path)


def test_names_and_sizes_that_a_data_set_does_not_have():
    for arguments, words in (
        (("mnits",), "choose from mnist"),
        (("mnist", 64), "--image-size 64.*32"),
        (("celeba", None, 1), "--channels 1"),
        (("folder", 48), "64 or 32"),
    ):
        with pytest.raises(UserError, match=words):
            data.describe(*arguments)

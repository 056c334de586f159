"""Images of every mode become grey or RGB, damaged files are named, the cache is whole and reused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import fill, noise
from PIL import Image

import data
from data import decoding
from data.base import LoadOptions
from data.decoding import decode
from utils.errors import UserError

RGB, GREY = (LoadOptions(None, 32, channels) for channels in (3, 1))


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
    grey = torch.from_numpy(np.array(decoding.centre_square(base.convert("L"), 32))).float()
    for file in sorted(tmp_path.iterdir()):
        rgb = decode(file, RGB)
        single = decode(file, GREY)
        assert rgb.shape == (3, 32, 32) and single.shape == (1, 32, 32) and rgb.dtype == np.uint8, file
        if file.name != "bilevel.png":
            assert (torch.tensor(single[0]).float() - grey).abs().mean() < 4, file


def test_transparency_is_laid_on_white(tmp_path):
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 20, 10))
    image.save(tmp_path / "half.png")
    image.convert("P").save(tmp_path / "palette.png", transparency=image.convert("P").getpixel((0, 19)))
    for name in ("half.png", "palette.png"):
        pixels = decode(tmp_path / name, LoadOptions(None, 20, 3))
        assert pixels[:, 19, 10].tolist() == [255, 255, 255], name
        assert pixels[:, 0, 10].tolist() == [0, 0, 255], name


def ramp_of(path, peak: float, kind=np.float32) -> np.ndarray:
    """Saves a ramp from 0 to the peak."""
    ramp = (np.linspace(0, 1, 32 * 32).reshape(32, 32) * peak).astype(kind)
    Image.fromarray(ramp).save(path)
    return ramp


def test_white_of_deep_images(tmp_path):
    """65535 in 16 bits; the user's word in all of them."""
    for name, peak, kind in (
        ("dark.png", 200, np.uint16),
        ("grey.pgm", 30000, np.uint16),
        ("grey.tif", 4095, np.uint16),
    ):
        ramp = ramp_of(tmp_path / name, peak, kind)
        assert np.abs(decode(tmp_path / name, GREY)[0] - 255 * (ramp / 65535)).max() <= 1, name
    assert (
        np.abs(decode(tmp_path / "grey.tif", LoadOptions(None, 32, 1, white=4095))[0] - 255 * (ramp / 4095)).max() <= 1
    )
    for kind in (np.float32, np.int32):
        ramp = ramp_of(tmp_path / "unsaid.tif", 800, kind)
        pixels = decode(tmp_path / "unsaid.tif", LoadOptions(None, 32, 1, white=400))[0]
        assert np.abs(pixels - 255 * np.clip(ramp / 400, 0, 1)).max() <= 1


@pytest.mark.parametrize(
    ("peaks", "white"),
    [((60000, 1000, 280, 250, 20, 1), 65535), ((0.2, 1.05), 1), ((0.9, 280, 3), 255), ((255, 281), 65535)],
)
def test_one_white_for_a_folder_of_floats(tmp_path, capsys, peaks, white):
    """It is that of the largest value; guessed for each image, the dark ones would become bright."""
    for index in range(12):
        ramp_of(tmp_path / f"{index:02}.tif", peaks[index % len(peaks)])
    parts = [data.load("folder", split, tmp_path, None, 32, 1) for split in ("train", "valid", "test")]
    found = sorted(int(image.max()) for part in parts for image in part.store)
    expected = [min(255, round(255 * peak / white)) for peak in peaks]
    assert found == sorted(expected * (12 // len(peaks)))
    assert capsys.readouterr().out.count(f"white is {white} in 12 images") == 1


def test_given_splits_have_the_same_white(tmp_path):
    for split, peak in (("train", 100), ("test", 1000)):
        (tmp_path / split).mkdir()
        ramp_of(tmp_path / split / "x.tif", peak)
    train, test = (data.load("folder", split, tmp_path, None, 32, 1).store for split in ("train", "test"))
    assert (train.max(), test.max()) == (round(255 * 100 / 65535), round(255 * 1000 / 65535))
    given = data.load("folder", "train", tmp_path, None, 32, 1, white=1000).store
    assert given.max() == round(255 * 100 / 1000)
    ramp_of(tmp_path / "test" / "x.tif", 200)  # the training images are the same, their white is not
    assert data.load("folder", "train", tmp_path, None, 32, 1).store.max() == 100


@pytest.mark.parametrize(
    ("values", "words"), [(np.nan, "none below 0"), (-0.01, "none below 0"), (1e6, "up to 1e.06.*--white")]
)
def test_values_that_no_white_explains(tmp_path, values, words):
    for index in range(12):
        ramp_of(tmp_path / f"{index:02}.tif", 1)
    Image.fromarray(np.full((8, 8), values, np.float32)).save(tmp_path / "bad.tif")
    with pytest.raises(UserError, match=f"bad.tif: .*{words}"):
        data.load("folder", "train", tmp_path, None, 32, 1)
    train = data.load("folder", "train", tmp_path, None, 32, 1, skip_corrupt=True)
    assert all(image.max() == 255 for image in train.store)


def test_a_link_to_nothing_is_named_and_can_be_skipped(tmp_path, capsys):
    fill(tmp_path, 20)
    (tmp_path / "x.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"x\.png: cannot be decoded \(a link to nothing\).*--skip-corrupt"):
        data.load("folder", "train", tmp_path)
    parts = [data.load("folder", split, tmp_path, skip_corrupt=True) for split in ("train", "valid", "test")]
    assert sum(map(len, parts)) == 20 and f"skipped {tmp_path / 'x.png'}" in capsys.readouterr().out
    assert data.fingerprint("folder", tmp_path)


def test_a_rotated_photograph_is_shown_upright(tmp_path):
    upright = Image.new("RGB", (60, 60), "black")
    upright.paste("white", (0, 0, 60, 20))  # white at the top
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    pixels = decode(tmp_path / "turned.png", GREY)[0]
    assert pixels[2].mean() > 250 and pixels[29].mean() < 5


def test_the_centre_is_kept(tmp_path):
    wide = Image.new("RGB", (90, 30), "red")
    wide.paste("blue", (30, 0, 60, 30))
    pixels = np.asarray(decoding.centre_square(wide, 10))
    assert (pixels[:, 1:-1] == [0, 0, 255]).all()


def test_the_cache_is_reused_until_a_file_changes(tmp_path, monkeypatch):
    fill(tmp_path)
    first = data.load("folder", "train", tmp_path)
    decoded = []
    original = decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda *args, **how: decoded.append(1) or original(*args, **how))
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
    (cache,) = [file for file in (tmp_path / ".cache").iterdir() if file.suffix == ".npy"]
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
    (cache,) = [file for file in (tmp_path / ".cache").iterdir() if file.suffix == ".npy"]
    assert cache.stat().st_mode & 0o777 == (tmp_path / "bad.jpg").stat().st_mode & 0o777
    assert sum(map(len, parts)) == 19
    whole = {
        decode(file, LoadOptions(None, 64, 3)).tobytes() for file in tmp_path.glob("0*.png") if file.name != "003.png"
    }
    assert {image.numpy().tobytes() for part in parts for image in part.store} == whole

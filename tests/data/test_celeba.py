"""CelebA in the layouts that it is found in, the published crop, and what a user is told of a part of it."""

import pytest
import torch
import torchvision
from pictures import fill, noise
from PIL import Image

import data
from utils.errors import UserError


def celeba(path, nested: bool):
    root = path / "celeba" if nested else path
    fill(root / "img_align_celeba", 6, (178, 218))
    lines = [f"{index:03}.png {part}" for index, part in enumerate((0, 0, 0, 1, 2, 2))]
    (root / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return root


def as_torchvision(file, crop: int) -> torch.Tensor:
    """What the released loaders make of a file."""
    steps = (
        torchvision.transforms.CenterCrop(crop),
        torchvision.transforms.Resize([64, 64]),
        torchvision.transforms.ToTensor(),
    )
    return torchvision.transforms.Compose(steps)(Image.open(file))


@pytest.mark.parametrize("nested", [True, False])
def test_celeba_as_torchvision_lays_it_out(tmp_path, nested):
    root = celeba(tmp_path, nested)
    sizes = {split: len(data.load("celeba", split, tmp_path)) for split in ("train", "valid", "test")}
    assert sizes == {"train": 3, "valid": 1, "test": 2}
    expected = as_torchvision(root / "img_align_celeba" / "003.png", 148)
    assert torch.equal(data.load("celeba", "valid", tmp_path)[:1][0], expected)


def test_every_crop_is_that_of_torchvision_and_has_a_cache_of_its_own(tmp_path):
    root = celeba(tmp_path, True)
    for _ in range(2):  # decoded, then from the caches
        for crop in (148, 178, 140):
            expected = as_torchvision(root / "img_align_celeba" / "003.png", crop)
            assert torch.equal(data.load("celeba", "valid", tmp_path, crop=crop)[:1][0], expected)
    assert len(list((root / ".cache").glob("*.index.npz"))) == 3
    with pytest.raises(UserError, match=r"--crop 150: --dataset celeba has 148, 178, 140"):
        data.load("celeba", "valid", tmp_path, crop=150)
    with pytest.raises(UserError, match=r"--crop 178: only for --dataset celeba, not digits"):
        data.load("digits", "valid", crop=178)


def test_images_that_are_cropped_already(tmp_path):
    """As large as the crop they are only resized; a larger crop names one of them."""
    for split in ("train", "val", "test"):
        fill(tmp_path / split, 2, (148, 148))
    file = sorted((tmp_path / "val").iterdir())[0]
    assert torch.equal(data.load("celeba", "valid", tmp_path)[:1][0], as_torchvision(file, 148))
    assert torch.equal(data.load("celeba", "valid", tmp_path, crop=140)[:1][0], as_torchvision(file, 140))
    with pytest.raises(UserError, match=r"148x148 pixels, expected at least 178x178; give a smaller --crop"):
        data.load("celeba", "valid", tmp_path, crop=178)


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
    with pytest.raises(UserError, match=r"quota exceeded.*img_align_celeba.*train/, val/, test/"):
        data.load("celeba", "train", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_celeba_of_the_wrong_size_is_named(tmp_path):
    root = celeba(tmp_path, True)
    noise(60, 60).save(root / "img_align_celeba" / "001.png")
    with pytest.raises(UserError, match=r"001\.png.*60x60 pixels, expected at least 148x148"):
        data.load("celeba", "train", tmp_path)


def test_celeba_of_a_mirror(tmp_path):
    """The images in two folders of one name, the partition with commas and a header."""
    root = celeba(tmp_path, True)
    fill(root / "img_align_celeba" / "img_align_celeba", 6, (178, 218))
    rows = (root / "list_eval_partition.txt").read_text().replace(" ", ",")
    (root / "list_eval_partition.csv").write_text("image_id,partition\n" + rows)
    (root / "list_eval_partition.txt").unlink()
    for path in (tmp_path, root):
        assert [len(data.load("celeba", split, path)) for split in ("train", "valid", "test")] == [3, 1, 2]


def test_celeba_as_its_site_lays_it_out(tmp_path):
    fill(tmp_path / "Img" / "img_align_celeba", 2, (178, 218))
    (tmp_path / "Eval").mkdir()
    (tmp_path / "Eval" / "list_eval_partition.txt").write_text("000.png 0\n001.png 2\n")
    assert [len(data.load("celeba", split, tmp_path)) for split in ("train", "test")] == [1, 1]

"""CelebA, aligned and cropped: centre 148x148 of 178x218, resized to 64x64."""

import contextlib
import io
from pathlib import Path

from PIL import Image

from data.base import Dataset
from data.folder import decode_all, list_images, require_folder, split_folder
from utils.errors import UserError

CROP = 148
PARTITION = {"train": 0, "valid": 1, "test": 2}


def face(image: Image.Image, image_size: int) -> Image.Image:
    """The centre 148x148, resized (bilinear with antialiasing). Raises ValueError for an image smaller than that."""
    if min(image.size) < CROP:
        raise ValueError(f"{image.width}x{image.height} pixels, expected at least {CROP}x{CROP}")
    left, top = round((image.width - CROP) / 2), round((image.height - CROP) / 2)
    square = image.crop((left, top, left + CROP, top + CROP))
    return square.resize((image_size, image_size), Image.Resampling.BILINEAR)


def load(split: str, path: Path, image_size: int = 64, channels: int = 3, skip_corrupt: bool = False) -> Dataset:
    """A split of CelebA: 162,770, 19,867 or 19,962 images of the official partition.

    Found as torchvision lays it out (``celeba/img_align_celeba`` and ``celeba/list_eval_partition.txt`` below
    ``path``, or ``path`` itself) or as IRMAE did (``{train,val,test}/*``); otherwise torchvision downloads it.
    """
    if path.is_dir():
        for root in (path, path / "celeba"):
            own_folder = split_folder(root, split)
            if own_folder is not None:
                files = list_images(own_folder)
                if not files:
                    raise UserError(f"{own_folder}: no images found: put the {split} images of CelebA there")
                return _decode(own_folder, files, image_size, channels, skip_corrupt, split)
    root = next((root for root in (path / "celeba", path) if (root / "img_align_celeba").is_dir()), None)
    if root is None:
        if path.exists():
            require_folder(path, "celeba")
        download(path)
        root = path / "celeba"
    partition = root / "list_eval_partition.txt"
    if not partition.is_file():
        raise UserError(f"{partition}: not found: CelebA's partition belongs beside the folder img_align_celeba")
    files = []
    for number, line in enumerate(partition.read_text().splitlines(), 1):
        fields = line.split()
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise UserError(f"{partition}, line {number}: expected 'NAME.jpg 0|1|2', found {line[:60]!r}")
        if int(fields[1]) == PARTITION[split]:
            files.append(root / "img_align_celeba" / fields[0])
    present = {file.name for file in (root / "img_align_celeba").iterdir()}
    missing = [file for file in files if file.name not in present]
    if missing:
        raise UserError(
            f"{missing[0]}: not found, but {partition.name} lists it ({len(missing)} of {len(files)} {split} images "
            "are missing): unpack img_align_celeba.zip again"
        )
    if not files:
        raise UserError(f"{partition}: lists no image of the {split} set (partition {PARTITION[split]})")
    return _decode(root, files, image_size, channels, skip_corrupt, split)


def _decode(root: Path, files: list[Path], image_size: int, channels: int, skip_corrupt: bool, split: str) -> Dataset:
    images, _ = decode_all(
        root,
        files,
        channels=channels,
        image_size=image_size,
        crop=face,
        skip_corrupt=skip_corrupt,
        title=f"decoding celeba {split}",
    )
    return Dataset(images)


def download(path: Path) -> None:
    """Let torchvision download CelebA below ``path``. Raises UserError with what to put where."""
    from torchvision import datasets

    print(f"celeba is not in {path}: downloading it (1.4 GB)")
    created = not path.exists()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            datasets.CelebA(path, split="all", download=True)
    except Exception as error:  # torchvision raises whatever the network, the disk or the archive raised
        for folder in (path / "celeba", *([path] if created else [])):
            with contextlib.suppress(OSError):
                folder.rmdir()  # only if the failed download left it empty
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"celeba: not found in {path} (--data-path) and the download failed ({reason}). Put img_align_celeba/*.jpg "
            f"and list_eval_partition.txt into {path / 'celeba'}, or train/, val/ and test/ with images into {path}; "
            "--dataset digits and --dataset shape need no download"
        ) from error

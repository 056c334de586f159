"""Any directory of images, decoded once in parallel into a uint8 cache beside it."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from data.base import Dataset
from utils.errors import UserError
from utils.files import replacing

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
SPLIT_FOLDERS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
CACHE_VERSION = 2  # raise it when the meaning of a cached pixel changes


def to_mode(image: Image.Image, channels: int) -> Image.Image:
    """Upright and in 1 (grey) or 3 (RGB) channels, whatever the file's mode; transparency is laid on white."""
    sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow's own conversion clips at 255 instead of scaling.
        values = np.asarray(image, dtype=np.float64)
        scale = 65535.0 if sixteen_bits else white_of(values)
        image = Image.fromarray(np.uint8(np.clip(values / scale, 0, 1) * 255 + 0.5))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("L" if channels == 1 else "RGB")


def white_of(values: np.ndarray) -> float:
    """The value of white in an image of floats or of 32-bit integers, which no file says: 1, 255 or 65535.

    Resampling overshoots: a tenth below black or above white is cut off.

    Raises:
        ValueError: values that none of these explains, or no numbers.
    """
    least, largest = float(values.min()), float(values.max())
    white = next((white for white in (1.0, 255.0, 65535.0) if largest <= 1.1 * white), None)
    if white is None or not np.isfinite(values).all() or least < -0.1 * white:
        raise ValueError(f"values from {least:g} to {largest:g}, expected 0 to 1, to 255 or to 65535")
    return white


def centre_square(image: Image.Image, image_size: int) -> Image.Image:
    """The largest centred square, resized (bilinear with antialiasing)."""
    return ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)


def decode(file: Path, channels: int, image_size: int, crop: Callable = centre_square) -> np.ndarray:
    """One file as uint8 ``(channels, image_size, image_size)``."""
    with Image.open(file) as image:
        image.load()
        pixels = np.asarray(crop(to_mode(image, channels), image_size))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def fingerprint(path: Path) -> str | None:
    """Tells a folder from what it was before, wherever it lies: twelve letters from the names and sizes of its images.

    None where there is no such folder.
    """
    if not path.is_dir():
        return None
    digest = hashlib.sha256()
    for file in list_images(path):
        digest.update(os.fsencode(file.relative_to(path)) + f"\0{file.stat().st_size}\n".encode())
    return digest.hexdigest()[:12]


def cache_file(root: Path, files: list[Path], description: str) -> Path:
    """Where the decoded images of these files are kept: the name holds names, sizes, times and preprocessing."""
    digest = hashlib.sha256(f"{CACHE_VERSION} {description}".encode())
    for file in files:
        status = file.stat()
        digest.update(os.fsencode(file.relative_to(root)))  # a name need not be valid text
        digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    folder = root / ".cache"
    if not os.access(folder if folder.is_dir() else root, os.W_OK):
        # Data on a read-only disk, as clusters have it.
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        folder = home / "latent-autoencoders" / hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]
    return folder / f"{digest.hexdigest()[:20]}.npy"


def decode_all(
    root: Path,
    files: list[Path],
    *,
    channels: int,
    image_size: int,
    crop: Callable = centre_square,
    skip_corrupt: bool = False,
    title: str = "decoding",
) -> tuple[Tensor, list[int]]:
    """All files as one memory-mapped uint8 tensor ``(N, channels, S, S)``, and the indices of the files in it.

    The first call decodes in parallel and writes the cache, later calls only map it.

    Raises:
        UserError: a file that cannot be decoded, unless ``skip_corrupt``; then it is named and left out.
    """
    cache = cache_file(root, files, f"{channels} {image_size} {crop.__name__} {skip_corrupt}")
    kept_file = cache.with_suffix(".kept.npy")
    if not (cache.is_file() and kept_file.is_file()):
        with replacing(cache) as pixels, replacing(kept_file) as indices:
            np.save(indices, np.array(_decode_into(pixels, files, channels, image_size, crop, skip_corrupt, title)))
    kept = np.load(kept_file).tolist()
    if len(kept) < len(files):
        print(f"{root}: {len(files) - len(kept)} of {len(files)} images cannot be decoded and are left out")
    # Copy-on-write: PyTorch wants writable memory, and nothing written would reach the file.
    return torch.from_numpy(np.load(cache, mmap_mode="c")), kept


def _decode_into(
    target: Path, files: list[Path], channels: int, image_size: int, crop: Callable, skip_corrupt: bool, title: str
) -> list[int]:
    """Decode into an .npy file at ``target``, which then holds only the good images; their indices."""
    pixels = np.lib.format.open_memmap(target, "w+", np.uint8, (len(files), channels, image_size, image_size))

    def work(index: int) -> Exception | None:
        try:
            pixels[index] = decode(files[index], channels, image_size, crop)
        except Exception as error:  # Pillow's plugins raise many kinds for a damaged file
            return error
        return None

    corrupt: list[int] = []
    # Threads: Pillow releases the interpreter's lock while it decodes and resizes.
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        for index, error in enumerate(tqdm(pool.map(work, range(len(files))), title, len(files), disable=None)):
            if error is None:
                continue
            if not skip_corrupt:
                raise UserError(
                    f"{files[index]}: cannot be decoded ({error}): remove it, or go on without it with --skip-corrupt"
                )
            corrupt.append(index)
            tqdm.write(f"skipped {files[index]}: {error}")
    finally:
        pool.shutdown(cancel_futures=True)
    bad = set(corrupt)
    kept = [index for index in range(len(files)) if index not in bad]
    if not kept:
        raise UserError(f"none of the {len(files)} images under {files[0].parent} can be decoded")
    pixels.flush()
    if corrupt:
        _leave_out(target, pixels, kept)
    return kept


def _leave_out(target: Path, pixels: np.ndarray, kept: list[int]) -> None:
    """Put a file with only the images ``kept`` in the place of ``target``; never all of them in memory."""
    handle, smaller = tempfile.mkstemp(dir=target.parent, suffix=".tmp")
    os.close(handle)
    try:
        good = np.lib.format.open_memmap(smaller, "w+", np.uint8, (len(kept), *pixels.shape[1:]))
        for new, old in enumerate(kept):
            good[new] = pixels[old]
        good.flush()
        os.replace(smaller, target)
    except BaseException:
        Path(smaller).unlink(missing_ok=True)
        raise


def list_images(folder: Path) -> list[Path]:
    """Every image file below the folder, sorted; hidden files and folders are left out."""
    found, seen = [], set()
    for directory, folders, names in os.walk(folder, followlinks=True):
        place = os.path.realpath(directory)
        if place in seen:  # a link back up: every image is listed once
            folders[:] = []
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(directory, name)
            for name in sorted(names)
            if Path(name).suffix.lower() in EXTENSIONS and not name.startswith(".")
        ]
    return found


def split_folder(path: Path, split: str) -> Path | None:
    """The sub-folder of a split in the layout ``<path>/{train,val,test}``, or None where there is no such layout."""
    folders: dict[str, Path] = {}
    for child in sorted(path.iterdir()) if path.is_dir() else []:
        name = child.name.lower()
        if child.is_dir() and any(name in names for names in SPLIT_FOLDERS.values()):
            if name in folders:
                raise UserError(f"{path}: has both {folders[name].name} and {child.name}: put them together")
            folders[name] = child
    if "train" not in folders:
        return None
    # One folder beside train serves as both validation and test set.
    for name in (*SPLIT_FOLDERS[split], *SPLIT_FOLDERS["valid"], *SPLIT_FOLDERS["test"]):
        if name in folders:
            return folders[name]
    raise UserError(
        f"{path}: has a folder train but none of valid, val or test: add one, or give a folder without splits"
    )


def require_folder(path: Path, dataset: str) -> None:
    """Raises UserError unless the path is a directory."""
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise UserError(
            f"--data-path {path}: expected a directory of images for --dataset {dataset}, found {found} there"
        )


def load(split: str, path: Path, image_size: int, channels: int, skip_corrupt: bool = False) -> Dataset:
    """A split of a directory of images.

    ``<path>/{train,val,test}`` are the splits where they exist; otherwise about 80, 10 and 10 % of all images. There a
    hash of an image's name below ``path`` decides, so that it stays in its split when others come or go. Where all
    images lie in sub-folders, the first level of sub-folders gives the labels.

    Raises:
        UserError: no directory, no images, too few to split, or a damaged one.
    """
    require_folder(path, "folder")
    own_folder = split_folder(path, split)
    root = own_folder or path
    files = list_images(root)
    if not files:
        raise UserError(f"{root}: no images found (looked for {', '.join(sorted(EXTENSIONS))}): check --data-path")
    if own_folder is None and len(files) < 10:
        raise UserError(
            f"{root}: found {len(files)} images, need at least 10 to make a training, validation and test set"
        )
    # Decoded in a random order, so that a split, and the first images of one, are a fair sample of the folder.
    files.sort(key=lambda file: lot(file.relative_to(root)))
    images, kept = decode_all(
        root, files, channels=channels, image_size=image_size, skip_corrupt=skip_corrupt, title=f"decoding {root.name}"
    )
    if len(kept) < 10 and own_folder is None:
        raise UserError(
            f"{root}: {len(kept)} of its {len(files)} images can be decoded, need at least 10 to make a training, "
            "validation and test set"
        )
    names = [files[index].relative_to(root) for index in kept]
    # The training set's classes number the labels of every split, whichever of them the split has.
    known = (
        class_folders([file.relative_to(training) for file in list_images(training)])
        if (training := split_folder(path, "train"))
        else None
    )
    labels, classes = folder_labels(names, known, root)
    part = slice(None)
    if own_folder is None:
        part = split_of([lot(name) for name in names])[split]
    return Dataset(images[part], None if labels is None else labels[part], classes)


def lot(name: Path) -> float:
    """A number from 0 to 1 that depends on a file's name alone and looks random."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name.as_posix())).digest()[:8], "big") / 2**64


def split_of(lots: list[float]) -> dict[str, slice]:
    """Which of at least 3 images, sorted by their lots, belong to a split: below 0.1 validation, below 0.2 test.

    A split that would be empty, in a small folder, takes the nearest.
    """
    valid = min(max(1, sum(value < 0.1 for value in lots)), len(lots) - 2)
    test = min(max(valid + 1, sum(value < 0.2 for value in lots)), len(lots) - 1)
    return {"valid": slice(valid), "test": slice(valid, test), "train": slice(test, None)}


def class_folders(names: list[Path]) -> list[str]:
    """The first level of sub-folders, sorted, where every image lies in one and there are at least two; else none."""
    folders = {name.parts[0] for name in names if len(name.parts) > 1}
    if len(folders) < 2 or any(len(name.parts) == 1 for name in names):
        return []
    return sorted(folders)


def folder_labels(names: list[Path], known: list[str] | None, root: Path) -> tuple[Tensor | None, list[str] | None]:
    """Labels of images by their sub-folders, and the classes in their order.

    Args:
        names: of the images, relative to ``root``.
        known: the classes of the training set, where the split has a folder of its own; none of them: no labels.

    Raises:
        UserError: a class that the training set does not have.
    """
    classes = class_folders(names) if known is None else known
    if not classes:
        return None, None
    position = {name: index for index, name in enumerate(classes)}
    for name in names:
        if name.parts[0] not in position:
            raise UserError(
                f"{root / name}: its folder {name.parts[0]!r} is no class of the training set, which has "
                f"{', '.join(classes)}"
            )
    return torch.tensor([position[name.parts[0]] for name in names]), classes

"""Any directory of images: how it is split, and what its sub-folders say."""

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor

from data.base import Dataset, LoadOptions
from data.decoding import decode_all
from data.image_cache import status_of
from utils import files
from utils.errors import UserError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
SPLIT_FOLDERS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
SMALLEST = 10  # images of a folder that is split here


def load(split: str, path: Path, options: LoadOptions) -> Dataset:
    """A split of a directory of images.

    ``<path>/{train,val,test}`` are the splits where they exist; otherwise about 80, 10 and 10 % of all images, by a
    hash of names, so that each stays in its split when others come or go. Sub-folders are labels, the first level.
    Raises UserError for no directory, no images, too few to split, or a damaged one.
    """
    require_folder(path, "folder")
    own_folder = split_folder(path, split)
    root = own_folder or path
    images = list_images(root)
    if not images:
        raise UserError(f"{root}: no images found (looked for {', '.join(sorted(EXTENSIONS))}): check --data-path")
    needed = f"need at least {SMALLEST} to make a training, validation and test set"
    if own_folder is None and len(images) < SMALLEST:
        raise UserError(f"{root}: found {len(images)} images, {needed}")
    # Decoded in a random order, so that a split, and the first images of one, are a fair sample of the folder.
    images.sort(key=lambda file: hash_fraction(file.relative_to(root)))
    others = list_images(path) if own_folder else []
    pixels, kept = decode_all(root, images, options, title=f"decoding {root.name}", other_splits=others)
    if own_folder is None and len(kept) < SMALLEST:
        raise UserError(f"{root}: {len(kept)} of its {len(images)} images can be decoded, {needed}")
    names = [images[index].relative_to(root) for index in kept]
    # The training set's classes number the labels of every split, whichever of them the split has.
    training = split_folder(path, "train")
    classes = class_folders([file.relative_to(training) for file in list_images(training)] if training else names)
    labels = folder_labels(names, classes, root)
    part = slice(None) if own_folder else split_of([hash_fraction(name) for name in names])[split]
    return Dataset(pixels[part], None if labels is None else labels[part], classes or None)


def fingerprint(path: Path) -> str | None:
    """Changes with the names and sizes of a folder's images, wherever it lies. None where there is no such folder."""
    if not path.is_dir():
        return None
    names = (os.fsencode(file.relative_to(path)) + f"\0{status_of(file)[0]}\n".encode() for file in list_images(path))
    return files.fingerprint(b"".join(names))


def list_images(folder: Path) -> list[Path]:
    """Every image file below the folder, sorted; hidden files and folders are left out."""
    found, seen = [], set()

    def refuse(error: OSError) -> None:  # a sub-folder that cannot be read is not an empty one
        raise error

    for directory, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        place = os.path.realpath(directory)
        if place in seen:  # a link back up: every image is listed once
            folders[:] = []
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = (Path(directory, name) for name in sorted(names) if not name.startswith("."))
        found += [file for file in files if file.suffix.lower() in EXTENSIONS]
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
    advice = "add one, or give a folder without splits"
    raise UserError(f"{path}: has a folder train but none of valid, val or test: {advice}")


def require_folder(path: Path, dataset: str) -> None:
    """Raises UserError unless the path is a directory."""
    if not path.is_dir():
        found = f"found {'a file' if path.exists() else 'nothing'} there: give the one where they lie"
        raise UserError(f"--data-path {path}: expected a directory of images for --dataset {dataset}, {found}")


def hash_fraction(name: Path) -> float:
    """A number from 0 to 1 that depends on a file's name alone and looks random."""
    return fraction(os.fsencode(name.as_posix()))


def fraction(content: bytes) -> float:
    """A number from 0 to 1 that depends on the content alone and looks random."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") / 2**64


def split_of(fractions: list[float]) -> dict[str, slice]:
    """Parts of 3 or more sorted by hash fraction: below 0.1 validation, below 0.2 test; at least one in each."""
    valid = min(max(1, sum(value < 0.1 for value in fractions)), len(fractions) - 2)
    test = min(max(valid + 1, sum(value < 0.2 for value in fractions)), len(fractions) - 1)
    return {"valid": slice(valid), "test": slice(valid, test), "train": slice(test, None)}


def class_folders(names: list[Path]) -> list[str]:
    """The first level of sub-folders, sorted, where every image lies in one and there are at least two; else none."""
    folders = {name.parts[0] for name in names}
    return sorted(folders) if len(folders) > 1 and all(len(name.parts) > 1 for name in names) else []


def folder_labels(names: list[Path], classes: list[str], root: Path) -> Tensor | None:
    """Labels of images by their sub-folders; None without classes. Raises UserError for a folder that is none."""
    position = {name: index for index, name in enumerate(classes)}
    for name in names if classes else []:
        if name.parts[0] not in position:
            known = f"the training set, which has {', '.join(classes)}"
            raise UserError(f"{root / name}: its folder {name.parts[0]!r} is no class of {known}")
    return torch.tensor([position[name.parts[0]] for name in names]) if classes else None

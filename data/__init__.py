"""The table of data sets. ``load`` finds one, prepares it once and gives it as tensors."""

from dataclasses import dataclass
from pathlib import Path

from data import celeba, folder, mnist, shapes
from data.base import Dataset
from utils.errors import UserError


@dataclass(frozen=True)
class Row:
    """What a model must know of a data set before it is loaded.

    Attributes:
        image_sizes: the sizes (pixels) that can be asked for, the default first.
        channels: the numbers of channels that can be asked for, the default first.
        architectures: the networks for each image size (``models.networks.ARCHITECTURES``).
        latent_dims: n for each image size unless the user gives it.
        title: one line for ``--help``.
    """

    title: str
    image_sizes: tuple[int, ...]
    channels: tuple[int, ...]
    architectures: tuple[str, ...]
    latent_dims: tuple[int, ...]


DATASETS = {
    "mnist": Row("handwritten digits, 60,000 and 10,000", (32,), (1,), ("mnist",), (128,)),
    "fashion-mnist": Row("articles of clothing, 60,000 and 10,000", (32,), (1,), ("mnist",), (128,)),
    "celeba": Row("aligned faces, 162,770, 19,867 and 19,962", (64,), (3,), ("celeba",), (512,)),
    "shape": Row("circles and squares of seven factors, rendered on the fly", (32,), (3,), ("shape",), (32,)),
    "digits": Row("scikit-learn's 1,797 digits, no download", (32,), (1,), ("mnist",), (128,)),
    "folder": Row("any directory of images", (64, 32), (3, 1), ("celeba", "mnist"), (512, 128)),
}

DEFAULT_PATH = "./datasets"  # where files are looked for and downloaded to
ON_DISK = ("mnist", "fashion-mnist", "celeba", "folder")  # the others are made here
SHAPE_SIZES = {"train": 50_000, "valid": 10_000, "test": 10_000}


def describe(name: str, image_size: int | None = None, channels: int | None = None) -> dict[str, object]:
    """Everything about a data set that a checkpoint records and a model is built for.

    Returns:
        ``name``, ``image_size``, ``channels``, ``architecture``, ``latent_dim``: plain values.

    Raises:
        UserError: unknown name, or an image size or number of channels that the data set does not come in.
    """
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r}: choose from {', '.join(DATASETS)}")
    row = DATASETS[name]
    image_size = row.image_sizes[0] if image_size is None else image_size
    channels = row.channels[0] if channels is None else channels
    if image_size not in row.image_sizes:
        sizes = " or ".join(map(str, row.image_sizes))
        raise UserError(f"--image-size {image_size}: --dataset {name} comes in {sizes} pixels")
    if channels not in row.channels:
        raise UserError(f"--channels {channels}: --dataset {name} has {' or '.join(map(str, row.channels))}")
    position = row.image_sizes.index(image_size)
    return {
        "name": name,
        "image_size": image_size,
        "channels": channels,
        "architecture": row.architectures[position],
        "latent_dim": row.latent_dims[position],
    }


def fingerprint(name: str, path: str | Path) -> str | None:
    """Twelve letters that change with the files of a ``folder``; None for what its name alone tells."""
    return folder.fingerprint(Path(path)) if name == "folder" else None


def recorded_path(name: str, recorded: str | None, source: Path) -> str | None:
    """Where the checkpoint ``source`` had its data, or None, said in a line, where that is there no more."""
    if recorded is None or Path(recorded).is_dir():
        return recorded
    if name in ON_DISK:
        print(f"{recorded}: not there any more, where {source} was trained from: looking in {DEFAULT_PATH}")
    return None


def load(
    name: str,
    split: str,
    path: str | Path = DEFAULT_PATH,
    size: int | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    skip_corrupt: bool = False,
) -> Dataset:
    """A split of a data set.

    Args:
        name: a row of ``DATASETS``.
        split: "train", "valid" or "test". MNIST's 10,000 test images serve as both of the last, as in the
            code released with IRMAE.
        path: where the files are or are downloaded to.
        size: only the first so many images; all unless given (shape: 50,000, 10,000 and 10,000).
        image_size, channels, skip_corrupt: see ``describe`` and ``data.folder``.

    Raises:
        UserError: nothing usable there, or fewer images than ``size``.
    """
    description = describe(name, image_size, channels)
    path = Path(path)
    images = {"image_size": description["image_size"], "channels": description["channels"]}
    if name == "shape":
        return shapes.load(split, SHAPE_SIZES[split] if size is None else size)
    if name == "digits":
        dataset = mnist.load_digits(split)
    elif name == "celeba":
        dataset = celeba.load(split, path, skip_corrupt=skip_corrupt, **images)
    elif name == "folder":
        dataset = folder.load(split, path, skip_corrupt=skip_corrupt, **images)
    else:
        dataset = mnist.load(name, split, path)
    if size is None:
        return dataset
    if size > len(dataset):
        flag = "--train-size" if split == "train" else "--valid-size" if split == "valid" else "--test-size"
        raise UserError(f"{flag} {size}: the {split} set of {name} has {len(dataset)} images")
    return dataset.first(size)

"""The table of data sets. ``load`` finds one, prepares it once and gives it as tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from data import arrays, celeba, cifar10, digits, folder, mnist, shapes
from data.arrays import SUFFIXES
from data.base import Dataset, LoadOptions
from utils.errors import UserError


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is loaded."""

    title: str  # one line for ``--help``
    load: Callable[
        [str, Path, LoadOptions], Dataset
    ]  # of a split, from a path; UserError where nothing usable is there
    image_size: int  # height and width unless the user asks for another, pixels
    channels: tuple[int, ...]  # the numbers that can be asked for, the default first
    train_size: int | None  # number of training images; None if that depends on the files
    labels: bool | None  # whether it has labels; None if that depends on the files
    other_sizes: Sequence[int] = ()  # the image sizes that can be asked for beside ``image_size``
    network: tuple[str, int] | None = None  # its own (``models.networks``) and n; None for those of its image size
    on_disk: bool = True  # whether it is read from ``--data-path``; otherwise it is generated
    fingerprint: Callable[[Path], str | None] | None = None  # of the files at a path; None: always the same
    options: Mapping[str, tuple] = field(default_factory=dict)  # of its own in LoadOptions: choices, the default first


mnist_images, fashion_images = partial(mnist.load, "mnist"), partial(mnist.load, "fashion-mnist")
DATASETS = {
    "mnist": DatasetInfo("handwritten digits, 60,000 and 10,000", mnist_images, 32, (1,), 60_000, True),
    "fashion-mnist": DatasetInfo("articles of clothing, 60,000 and 10,000", fashion_images, 32, (1,), 60_000, True),
    "cifar10": DatasetInfo("ten kinds of things in colour, 50,000 and 10,000", cifar10.load, 32, (3,), 50_000, True),
    "celeba": DatasetInfo("aligned faces, 162,770, 19,867 and 19,962", celeba.load, 64, (3,), 162_770, False,
                          options={"crop": celeba.CROPS}),
    "shape": DatasetInfo("circles and squares of seven factors, rendered on the fly", shapes.load, 32, (3,), 50_000,
                         True, network=("shape", 32), on_disk=False, options={"squares": shapes.SQUARES}),
    "digits": DatasetInfo("1,797 handwritten digits, no download", digits.load, 32, (1,), 1_437, True, on_disk=False),
    "folder": DatasetInfo("any directory of images", folder.load, 64, (3, 1), None, None,
                          other_sizes=range(32, 257), fingerprint=folder.fingerprint),
}  # fmt: skip
FILE = DatasetInfo("a file of your own", arrays.load, 0, (), None, None, fingerprint=arrays.fingerprint)
NETWORKS = {32: ("mnist", 128), 64: ("celeba", 512)}  # as published, by image size; "conv-96" and so on for others
UNRECORDED = {"crop": 148, "squares": "centred"}  # options of data in checkpoints from before there was a choice
IMAGE_OPTIONS = ("image_size", "channels", "skip_corrupt", "white", "samples_every")
DEFAULT_PATH = "./datasets"  # where files are looked for and downloaded to


def find(name: str) -> DatasetInfo:
    """What is known of a data set of ``DATASETS``, or of the name that ``name_of_file`` gives to a file."""
    if name not in DATASETS and not name.lower().endswith(tuple(map(dashed, SUFFIXES))):
        raise UserError(f"unknown data set {name!r}: choose from {', '.join(DATASETS)}")
    return DATASETS.get(name, FILE)


def dashed(name: str) -> str:
    return name.replace(".", "-")


def name_of_file(path: str) -> str | None:
    """The name of a file of one's own as a data set, "series-csv" of ``path/to/series.csv``; None for other endings."""
    return dashed(Path(path).name) if path.lower().endswith(SUFFIXES) else None


def file_options(name: str, given: Mapping[str, object]) -> dict:
    """``arrays.OPTIONS`` as ``given`` (not None), {} for a data set by name. Raises UserError for one of the other."""
    file = find(name) is FILE
    for key in IMAGE_OPTIONS if file else arrays.OPTIONS:
        if given.get(key):
            of = "of images" if file else "of a file of your own"
            raise UserError(f"--{key.replace('_', '-')} {given[key]}: {of}, which --dataset {name} is not")
    return {key: given.get(key) or default for key, default in arrays.OPTIONS.items()} if file else {}


def describe(name: str, image_size: int | None = None, channels: int | None = None) -> dict:
    """What a model of its images is built for, as plain values. Raises UserError for a size it does not come in."""
    info = find(name)
    if info is FILE:
        raise UserError(f"data set {name!r}: a file, which has no image size: choose from {', '.join(DATASETS)}")
    image_size = info.image_size if image_size is None else image_size
    channels = info.channels[0] if channels is None else channels
    if image_size != info.image_size and image_size not in info.other_sizes:
        others = f"{info.other_sizes[0]} to {info.other_sizes[-1]}" if info.other_sizes else info.image_size
        raise UserError(f"--image-size {image_size}: --dataset {name} comes in {others} pixels")
    if channels not in info.channels:
        raise UserError(f"--channels {channels}: --dataset {name} has {' or '.join(map(str, info.channels))}")
    architecture, latent_dim = info.network or NETWORKS.get(image_size, (f"conv-{image_size}", 512))
    sizes = {"image_size": image_size, "channels": channels, "latent_dim": latent_dim}
    return {"name": name, "architecture": architecture, **sizes}


def own_options(name: str) -> Mapping[str, tuple]:
    """The choices of the options that the data set alone has, the default first; none of a name that is not known."""
    return DATASETS[name].options if name in DATASETS else {}


def choose_options(name: str, given: Mapping[str, object]) -> dict:
    """The data set's own options: as given, else (None) the default. Raises UserError for another's, or no choice."""
    for key, value in given.items():
        own = {other: info.options[key] for other, info in DATASETS.items() if key in info.options}
        if value is not None and name not in own:
            raise UserError(f"--{key} {value}: only for --dataset {' or '.join(own)}, not {name}")
        if value is not None and value not in own[name]:
            raise UserError(f"--{key} {value}: --dataset {name} has {', '.join(map(str, own[name]))}")
    return {key: choices[0] if given.get(key) is None else given[key] for key, choices in find(name).options.items()}


def fingerprint(name: str, path: str | Path) -> str | None:
    """Twelve letters that change with the files at the path; None for what its name alone tells."""
    info = find(name)
    return info.fingerprint(Path(path)) if info.fingerprint else None


def recorded_path(name: str, recorded: str | None, source: Path) -> str | None:
    """Where the checkpoint ``source`` had its data; None, with a printed line, where a known one is gone from there."""
    if recorded is None or Path(recorded).exists() or find(name).fingerprint:  # one's own data are nowhere else
        return recorded
    if find(name).on_disk:
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
    white: float | None = None,
    file: Mapping | None = None,
    **options,
) -> Dataset:
    """A split of a data set.

    Args:
        name: a key of ``DATASETS``, or what ``name_of_file`` gives.
        split: "train", "valid" or "test", of a file also "all"; of two halves, the test images are both of the last,
            as IRMAE released it.
        path: where the files are or are downloaded to.
        size: only the first so many images; all unless given (shape: 50,000, 10,000 and 10,000).
        image_size, channels: see ``describe``.
        skip_corrupt, white, file: see ``data.base.LoadOptions``.
        options: ``crop`` of celeba, ``squares`` of shape.

    Raises UserError where nothing usable is there, or fewer images than ``size``.
    """
    info = find(name)
    if split not in ("train", "valid", "test") and (info is not FILE or split != "all"):
        raise UserError(f"split {split!r}: expected train, valid or test")
    if info is not FILE:
        described = describe(name, image_size, channels)
        image_size, channels = described["image_size"], described["channels"]
    loaded = LoadOptions(size, image_size or 0, channels or 0, skip_corrupt, white, file=file or {})
    dataset = info.load(split, Path(path), replace(loaded, **choose_options(name, options)))
    if size is not None and not 0 < size <= len(dataset):
        raise UserError(f"--{split}-size {size}: the {split} set of {name} has {len(dataset)} images")
    return dataset if size is None else dataset.first(size)

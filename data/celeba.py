"""CelebA, aligned and cropped: the centre square of 178x218, resized to 64x64."""

from pathlib import Path

from PIL import Image

from data.base import Dataset, LoadOptions
from data.decoding import decode_all
from data.download import download
from data.folder import list_images, require_folder, split_folder
from utils.errors import UserError

# IRMAE (train.py); RaDOGAGA (center_celeba.py); WAE, the authors' code and WAE-PyTorch. The default stands first.
CROPS = (148, 178, 140)
IMAGES = "img_align_celeba"
PARTITION = {"train": "0", "valid": "1", "test": "2"}


def face(image: Image.Image, image_size: int, crop: int) -> Image.Image:
    """The centre square, resized (bilinear with antialiasing). Raises ValueError for an image smaller than the crop."""
    if min(image.size) < crop:
        advice = "give a smaller --crop, or cropped images as --dataset folder"
        raise ValueError(f"{image.width}x{image.height} pixels, expected at least {crop}x{crop}; {advice}")
    left, top = round((image.width - crop) / 2), round((image.height - crop) / 2)
    square = image.crop((left, top, left + crop, top + crop))
    return square.resize((image_size, image_size), Image.Resampling.BILINEAR)


def load(split: str, path: Path, options: LoadOptions) -> Dataset:
    """A split of CelebA: 162,770, 19,867 or 19,962 images of the official partition.

    Found below ``path`` as torchvision, the site or a mirror lays it out, or as IRMAE did (``{train,val,test}/*``);
    otherwise torchvision downloads it.
    """

    def crop(image: Image.Image, image_size: int) -> Image.Image:
        return face(image, image_size, options.crop)

    # Part of the cache's name: caches of the first crop existed before there were others.
    crop.__name__ = "face" if options.crop == CROPS[0] else f"face-{options.crop}"
    roots = [path / "celeba", path / "CelebA", path]
    for root in roots:
        folder = split_folder(root, split)
        if folder is not None:
            files = list_images(folder)
            if not files:
                raise UserError(f"{folder}: no images found: put the {split} images of CelebA there")
            return Dataset(decode_all(folder, files, options, crop, f"decoding celeba {split}")[0])
    # The site has them in folders of their own, a mirror has the images in two folders of the same name.
    inner = [f"{IMAGES}/{IMAGES}", IMAGES, f"Img/{IMAGES}"]
    found = [(root, root / name) for root in roots for name in inner if (root / name).is_dir()]
    if not found:
        if path.exists():
            require_folder(path, "celeba")
        own = path / "celeba"
        images = f"{IMAGES}/*.jpg and list_eval_partition.txt into {own}"
        download("celeba", path, "CelebA", f"{images}, or train/, val/, test/ with images into {path}", split="all")
        found = [(own, own / IMAGES)]
    root, folder = found[0]
    places = [place / "list_eval_partition" for place in (root, root / "Eval", folder.parent)]
    lists = [place.with_suffix(suffix) for place in places for suffix in (".txt", ".csv")]
    partition = next((file for file in lists if file.is_file()), None)
    if partition is None:
        raise UserError(f"{lists[0]}: not found (nor a .csv): CelebA's partition belongs beside the folder {IMAGES}")
    files = [folder / name for name in names_of(split, partition, folder)]
    return Dataset(decode_all(root, files, options, crop, f"decoding celeba {split}")[0])


def names_of(split: str, partition: Path, folder: Path) -> list[str]:
    """The file names of a split. Raises UserError for a damaged partition and for images that are missing."""
    names = []
    for number, line in enumerate(partition.read_text(encoding="utf-8-sig").splitlines(), 1):
        fields = line.replace(",", " ").split()
        if number == 1 and fields == ["image_id", "partition"]:
            continue
        if len(fields) != 2 or fields[1] not in PARTITION.values():
            raise UserError(f"{partition}, line {number}: expected 'NAME.jpg 0|1|2', found {line[:60]!r}")
        if fields[1] == PARTITION[split]:
            names.append(fields[0])
    present = {file.name for file in folder.iterdir()}
    missing = [name for name in names if name not in present]
    if missing:
        found = f"not found, but {partition.name} lists it"
        count = f"{len(missing)} of {len(names)} {split} images are missing"
        raise UserError(f"{folder / missing[0]}: {found} ({count}): unpack {IMAGES}.zip again")
    if not names:
        raise UserError(f"{partition}: lists no image of the {split} set (partition {PARTITION[split]})")
    return names

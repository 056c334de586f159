"""Image files decoded once, in parallel, into a memory-mapped uint8 cache beside them."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from data.base import LoadOptions
from data.image_cache import allocate, cache_file, file_checksum, read_index
from utils.errors import UserError, exhausted
from utils.files import replacing

WHITES = (1.0, 255.0, 65535.0)  # candidates where the format, TIFF, does not define the value of white
OVERSHOOT = 1.1  # largest accepted value / white: resampling overshoots; clipped


def white_of(image: Image.Image) -> float | None:
    """The value of white that an opened image's format defines; None for floats and 32-bit integers."""
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        return None
    return 65535.0 if image.mode.startswith("I") else 255.0


def to_mode(image: Image.Image, channels: int, white: float | None = None, found: float | None = None) -> Image.Image:
    """Upright and in 1 (grey) or 3 (RGB) channels, whatever the file's mode; transparency is laid on white.

    Args:
        white: value of white in images of more than 8 bits per channel; larger values are clipped. None: the format's.
        found: the same where the format defines none, see ``common_white``.

    Raises ValueError for values below zero, not finite, or too large for any white.
    """
    own_white = white_of(image)
    image = ImageOps.exif_transpose(image)
    if own_white != 255:  # Pillow's own conversion clips at 255 instead of scaling
        values = np.asarray(image, dtype=np.float64)
        least, largest, scale = float(values.min()), float(values.max()), white or own_white or found
        if not np.isfinite(values).all() or least < 0:
            raise ValueError(f"values from {least:g} to {largest:g}, expected none below 0")
        if scale is None or (white is None and largest > OVERSHOOT * scale):
            raise ValueError(f"values up to {largest:g}, expected white to be 1, 255 or 65535: set it with --white")
        image = Image.fromarray(np.uint8(np.clip(values / scale, 0, 1) * 255 + 0.5))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("L" if channels == 1 else "RGB")


def common_white(files: Sequence[Path], root: Path) -> float | None:
    """White of TIFF files of floats or 32-bit integers: the least of ``WHITES`` that allows their largest value."""

    def largest(file: Path) -> float | None:
        try:
            with open_image(file) as image:
                return float(np.asarray(image).max()) if white_of(image) is None else None
        except Exception:  # damaged: reported when it is decoded
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        values = [value for value in pool.map(largest, files) if value is not None and value <= OVERSHOOT * WHITES[-1]]
    if not values:
        return None
    white = next(white for white in WHITES if max(values) <= OVERSHOOT * white)
    kind = f"{len(values)} images of floats or 32-bit integers (largest value {max(values):g})"
    print(f"{root}: white is {white:g} in {kind}; --white sets another")
    return white


def centre_square(image: Image.Image, image_size: int) -> Image.Image:
    """The largest centred square, resized (bilinear with antialiasing)."""
    return ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)


def open_image(file: Path) -> Image.Image:
    """An image file, opened. Raises ValueError for a link to nothing or a pipe, OSError and more for a damaged file."""
    if not file.is_file():
        raise ValueError("a link to nothing" if file.is_symlink() else "not a file")
    return Image.open(file)


def decode(file: Path, options: LoadOptions, crop: Callable = centre_square, found: float | None = None) -> np.ndarray:
    """One file as uint8 ``(channels, S, S)``; ``found`` and errors as in ``to_mode``."""
    with open_image(file) as image:
        image.load()
        pixels = np.asarray(crop(to_mode(image, options.channels, options.white, found), options.image_size))
    return pixels[None] if options.channels == 1 else pixels.transpose(2, 0, 1)


def decode_all(
    root: Path,
    files: Sequence[Path],
    options: LoadOptions,
    crop: Callable = centre_square,
    title: str = "decoding",
    other_splits: Sequence[Path] = (),
) -> tuple[Tensor, list[int]]:
    """All files as one memory-mapped uint8 tensor ``(N, channels, S, S)``, and the indices of the files in it.

    The first call decodes in parallel and writes the cache ``root/.cache``, later calls only map it. ``crop`` makes a
    square of an image and a size; ``other_splits`` are more images, whose white is the same. Raises UserError for a
    file that cannot be decoded, unless they are skipped; then it is named and left out.
    """
    tiffs = [file for file in [*files, *other_splits] if file.suffix.lower() in (".tif", ".tiff")]
    described = (options.channels, options.image_size, crop.__name__, options.skip_corrupt, options.white)
    cache = cache_file(root, [*files, *tiffs], *described)
    index_file = cache.with_suffix(".index.npz")
    kept = read_index(cache, index_file)
    if kept is None:
        found = common_white(tiffs, root) if tiffs and options.white is None else None
        decoder = partial(decode, options=options, crop=crop, found=found)
        with replacing(cache) as pixels:
            kept = _decode_into(pixels, files, options, decoder, title)
            checksum = file_checksum(pixels)
        with replacing(index_file) as index:
            np.savez(index, kept=np.array(kept), checksum=np.array(checksum))
    if len(kept) < len(files):
        print(f"{root}: {len(files) - len(kept)} of {len(files)} images cannot be decoded and are left out")
    # Copy-on-write: PyTorch wants writable memory, and nothing written would reach the file.
    return torch.from_numpy(np.load(cache, mmap_mode="c")[: len(kept)]), kept


def _decode_into(target: Path, files: Sequence[Path], options: LoadOptions, decode: Callable, title: str) -> list[int]:
    """Decode into an .npy file at ``target``, which then begins with the good images; their indices."""
    shape = (options.channels, options.image_size, options.image_size)
    pixels = allocate(target, (len(files), *shape))

    def work(index: int) -> Exception | None:
        try:
            pixels[index] = decode(files[index])
        except Exception as error:  # Pillow's plugins raise many kinds for a damaged file
            return error.with_traceback(None)  # whose frames would keep the map
        return None

    kept = []
    pool = ThreadPoolExecutor(os.cpu_count())  # Pillow releases the interpreter's lock while it decodes and resizes
    try:
        for index, error in enumerate(tqdm(pool.map(work, range(len(files))), title, len(files), disable=None)):
            if error is None:
                kept.append(index)
            elif getattr(error, "errno", None) or exhausted(error):
                raise error  # of this machine, permissions say: the file may be good
            elif options.skip_corrupt:
                tqdm.write(f"skipped {files[index]}: {error}")
            else:
                advice = "remove it, or go on without it with --skip-corrupt"
                raise UserError(f"{files[index]}: cannot be decoded ({error}): {advice}")
    finally:
        pool.shutdown(cancel_futures=True)
    if not kept:
        raise UserError(f"none of the {len(files)} images under {files[0].parent} can be decoded")
    for new, old in enumerate(kept):  # in place: never all of them in memory
        if new < old:
            pixels[new] = pixels[old]
    pixels.flush()
    return kept

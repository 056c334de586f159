"""Images for the tests of data sets."""

import numpy as np
from PIL import Image


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth random RGB image."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def fill(path, num: int = 12, size=(40, 50)):
    path.mkdir(parents=True, exist_ok=True)
    for index in range(num):
        noise(*size, seed=index).save(path / f"{index:03}.png")

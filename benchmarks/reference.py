"""The loop that the benchmark compares with: what the code released with IRMAE does for every batch.

Worker processes convert single images with PIL transforms, the convolutions are those of ``torch.nn`` in the default
memory format, Adam is not fused, nothing is in reduced precision, and each step waits for its loss.
"""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from data import mnist
from experiments.run import RunConfig
from utils.errors import UserError

GENERATED = 2000  # images of noise that stand for the data set's; larger than any batch, small beside the memory
ENDLESS = 2**30  # length of the data set, so that the workers never come to the end of an epoch
RAW_SIZES = {"mnist": (28, 28), "celeba": (218, 178, 3)}  # as stored, before crop and resize
TRANSFORMS = {
    "mnist": (transforms.Resize((32, 32)), transforms.ToTensor()),
    "celeba": (transforms.CenterCrop(148), transforms.Resize(64), transforms.ToTensor()),
    "shape": (transforms.ToTensor(),),
}


class Images(Dataset):
    """One image at a time, from a file, from an array in memory, or (shape) drawn when it is asked for.

    Args:
        name: "mnist", "celeba" or "shape".
        path: folder with the real images; noise of their size in memory, with no file to decode, unless given.
    """

    def __init__(self, name: str, path: Path | None = None):
        self.name = name
        self.transform = transforms.Compose(TRANSFORMS[name])
        self.stored: np.ndarray | list[Path] = []
        if name == "shape":
            return
        if path is None:
            noise = np.random.default_rng(0)
            self.stored = noise.integers(0, 256, (GENERATED, *RAW_SIZES[name]), dtype=np.uint8)
        elif name == "mnist":
            files = mnist.find_idx(name, "train", path)
            if files is None:
                raise UserError(f"--data-path {path}: no MNIST there; leave the flag out to measure on noise")
            self.stored = mnist.read_idx(files[0])
        else:
            self.stored = sorted((path / name).rglob("*.jpg"))
            if not self.stored:
                raise UserError(f"--data-path {path}: no {name}/**/*.jpg there; leave the flag out to measure on noise")

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Tensor:
        if self.name == "shape":
            return self.transform(draw_shape(np.random.default_rng(index)))
        image = self.stored[index % len(self.stored)]
        return self.transform(Image.open(image) if isinstance(image, Path) else Image.fromarray(image))


def draw_shape(random: np.random.Generator) -> np.ndarray:
    """A circle or a square on black, ``(32, 32, 3)`` uint8 (``data.shapes`` says which)."""
    size, x, y = random.integers(3, 9), random.integers(8, 25), random.integers(8, 25)
    dx, dy = np.arange(32)[None] - x, np.arange(32)[:, None] - y
    in_square = (np.minimum(dx, dy) >= 0) & (np.maximum(dx, dy) <= size)
    inside = in_square if random.random() < 0.5 else dx**2 + dy**2 <= size**2
    return (inside[:, :, None] * random.integers(0, 256, 3)).astype(np.uint8)


def steps(config: RunConfig, images: Images, batch_size: int, workers: int, device: torch.device) -> Iterator[float]:
    """Train a model of its own; yields the loss of every step."""
    torch.backends.cudnn.allow_tf32 = True  # PyTorch's default, which the released code leaves as it is
    model = config.build_model().to(device).train()
    model.train_size = len(images)
    # One group: parameter groups of a model that has several change nothing of the time.
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    # Forked, as by default on Linux: the process of the benchmark was itself spawned, and would spawn each worker.
    context = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    on_gpu = device.type == "cuda"
    for x in DataLoader(images, batch_size, num_workers=workers, pin_memory=on_gpu, multiprocessing_context=context):
        optimizer.zero_grad()
        loss = model.losses(x.to(device))["loss"]
        loss.backward()
        optimizer.step()
        yield loss.item()

"""Trained models in Python: open a checkpoint; encode, decode and sample. The evaluation scripts use nothing else.

from experiments.trained import load

run = load("checkpoint/mnist/irmae")
codes = run.encode(images)
samples = run.decode(run.sample("mvg", 64))
print(run.spectrum().rank())
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import data
from data.base import as_images
from experiments import integrity
from experiments.run import Checkpoint, RunConfig, read
from models.base import Autoencoder
from utils import devices, latents
from utils.errors import UserError
from utils.provenance import provenance

Images = Tensor | np.ndarray | data.Dataset  # (N, C, H, W): floats in [0, 1] or uint8; rows in the units of a file
POSTERIORS = {"sample": "a draw of q(z | x), as the code released with IRMAE", "mean": "the mean of q(z | x)"}
FIT_SIZE = 10_000  # training images whose codes a density is fitted to


@dataclass
class Trained:
    """A trained model, the configuration of its training run, and the data that it was trained on."""

    name: str  # of the checkpoint
    path: Path
    model: Autoencoder  # in evaluation mode, on the device
    config: RunConfig  # of the training; ``data_path`` is where the data lies now
    device: torch.device
    epochs: int | None = None  # finished; None for a file of the code released with IRMAE, which does not record them
    seconds: float | None = None  # of training and validation; None as well
    trained_by: list = field(default_factory=list)  # provenance of each process that trained it; earlier files: none
    posterior: str = "sample"  # which codes ``codes``, ``spectrum`` and ``sample`` use, a key of POSTERIORS
    seed: int = 0  # of draws of q(z | x)
    batch_size: int = 500
    _datasets: dict = field(default_factory=dict, repr=False)
    _codes: dict = field(default_factory=dict, repr=False)

    def dataset(self, split: str, size: int | None = None) -> data.Dataset:
        """ "train", "valid" or "test" of the data set, prepared as for training; only the first ``size`` images."""
        if (split, size) not in self._datasets:
            self._datasets[split, size] = self.config.load_data(split, size)
        return self._datasets[split, size]

    @cached_property
    def scaling(self) -> data.arrays.ArrayDataset:
        """Of a model of a file: converts rows between its units and what the network sees."""
        return cast(data.arrays.ArrayDataset, self.dataset("train"))

    def encode(self, images: Images) -> Tensor:
        """Codes ``(N, n)``, means of distributions. Raises UserError for images of another shape, type or range."""
        return self._encode(images, self.model.encode)

    def sample_codes(self, images: Images) -> Tensor:
        """A draw of each image's posterior, from ``seed``; as ``encode`` where the code is not a distribution."""
        return self._encode(images, self.model.sample_codes)

    def codes(self, images: str | Images = "test", size: int | None = None) -> Tensor:
        """Codes ``(N, n)`` of the kind that ``posterior`` names, of a split (``size`` images of it) or of images."""
        if self.posterior not in POSTERIORS:
            raise UserError(f"posterior {self.posterior!r}: expected {' or '.join(POSTERIORS)}")
        function = {"mean": self.model.encode, "sample": self.model.sample_codes}[self.posterior]
        return self._encode(self.dataset(images, size) if isinstance(images, str) else images, function)

    def encoder_codes(self, images: Images) -> Tensor:
        """Codes before the linear layers of IRMAE, which its release classifies; ``codes`` of any other model."""
        if type(self.model).encoder_codes is Autoencoder.encoder_codes:
            return self.codes(images)
        return self._encode(images, self.model.encoder_codes)

    @torch.no_grad()
    def _encode(self, images: Images, function: Callable[[Tensor], Tensor]) -> Tensor:
        model, total = self.model.eval(), -(-len(images) // self.batch_size)
        batches = tqdm(self._batches(images), "encoding", total, leave=False, disable=None)
        with torch.random.fork_rng(list({each.device for each in model.parameters() if each.is_cuda})):
            torch.manual_seed(self.seed)
            codes = torch.cat([function(x) for x in batches]).cpu()  # once, at the end: no batch waits for the host
        if not torch.isfinite(codes).all():
            raise UserError("the codes of this checkpoint are not finite numbers: train again with a lower --lr")
        return codes

    def _batches(self, images: Images) -> Iterator[Tensor]:
        if isinstance(images, data.Dataset):
            return images.batches(self.batch_size, self.device)
        if self.config.file:
            x = self.scaling.from_units(images)
        else:
            x = as_images(images, (self.config.channels, self.config.image_size, self.config.image_size))
        return (part.to(self.device) for part in x.split(self.batch_size))

    def decode(self, codes: Tensor | np.ndarray) -> Tensor:
        """Images ``(N, C, H, W)`` of codes ``(N, n)``, clamped to [0, 1]; of a file, rows in its units, float64."""
        decoded = torch.cat([images.cpu() for images in self.decode_batches(codes)])
        return torch.from_numpy(self.scaling.to_units(decoded)) if self.config.file else decoded

    @torch.no_grad()
    def decode_batches(self, codes: Tensor | np.ndarray) -> Iterator[Tensor]:
        """The same in batches, on the device, of a file scaled as for training: never all images at once."""
        z, n = torch.as_tensor(codes).float(), self.config.latent_dim
        if z.ndim != 2 or z.shape[1] != n:
            raise UserError(f"codes of shape {tuple(z.shape)}: expected (N, {n})")
        for part in z.split(self.batch_size):
            decoded = self.model.eval().decode(part.to(self.device))
            yield self.scaling.restore_constants(decoded) if self.config.file else decoded.clamp(0, 1)

    def spectrum(self, split: str = "test", size: int | None = None) -> latents.Spectrum:
        """Singular values of the covariance of the codes of a split, as ``singular.py`` shows them."""
        return latents.spectrum(self.codes(split, size))

    @cached_property
    def basis(self) -> latents.Basis:
        """Mean and singular vectors of the codes of the first 10,000 training samples."""
        return latents.basis(self.encode(self.dataset("train").first(FIT_SIZE)))

    def coordinates(self, images: Images, rank: int | None = None) -> Tensor:
        """Codes in the basis of their singular vectors: the first ``rank``, by default ``basis.spectrum.rank()``."""
        return self.basis.coordinates(self.encode(images), rank)

    def from_coordinates(self, coordinates: Tensor | np.ndarray) -> Tensor:
        """What ``decode`` gives, of coordinates ``(N, rank)``; those that were cut are 0."""
        return self.decode(self.basis.codes(coordinates))

    def codes_once(self, split: str, size: int) -> Tensor:
        """``codes`` of the first images of a split, computed once: of a model that is not trained meanwhile."""
        if (key := (split, size, self.posterior, self.seed)) not in self._codes:
            self._codes[key] = self.codes(self.dataset(split).first(size))
        return self._codes[key]

    def training_codes(self) -> Tensor:
        """Codes of the first 10,000 training images, to which a density is fitted. Computed once."""
        if len(self.dataset("train")) < 2:
            raise UserError("1 training image: a distribution of codes needs at least 2")
        return self.codes_once("train", FIT_SIZE)

    def sample(self, density: str, num: int, seed: int = 0, components: int = 4) -> Tensor:
        """Codes ``(num, n)`` drawn from a density. Raises UserError for the prior of a model that has none.

        Args:
            density: "prior", the model's own; "mvg", a multivariate Gaussian, or "gmm", a mixture of ``components``
                Gaussians, fitted to ``training_codes``.
        """
        if density == "prior":
            return self.model.sample_prior(num, torch.Generator().manual_seed(seed)).cpu()
        if density == "mvg":
            return latents.sample_gaussian(self.training_codes(), num, seed)
        if density == "gmm":
            return latents.sample_mixture(latents.fit_mixture(self.training_codes(), components, seed), num, seed)
        raise UserError(f"density {density!r}: expected prior, mvg or gmm")

    def summary(self) -> dict:
        """Where a result comes from, for the JSON files beside the figures."""
        config = self.config
        sizes = {key: getattr(config, key) for key in ("architecture", "channels", "latent_dim")}
        about = {"model_name": self.name, "model": config.model, "config": sizes | config.options}
        about |= {"dataset": config.dataset, "posterior": self.posterior, "trained_by": self.trained_by}
        about |= config.data_options() | config.file
        return about | {"provenance": provenance(self.device, self.seed)}


def load(path: str | Path, device: str | torch.device = "cpu", data_path: str | Path | None = None) -> Trained:
    """The trained model of a checkpoint file, or of a bare state dict of IRMAE's release. Raises UserError for others.

    Args:
        device: "cpu" or "cuda". On CUDA, TF32 is disabled for the whole process, as in the scripts.
        data_path: folder, or file, of the data set, if it is not where it was at training.
    """
    if torch.device(device).type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"device {device}: no CUDA device found, use device='cpu'")
        devices.set_precision("fp32")
    return build(Path(path), read(path), torch.device(device), data_path)


def build(path: Path, saved: Checkpoint, device: torch.device, data_path: str | Path | None = None) -> Trained:
    """The trained model of the content of a checkpoint. Raises UserError where its weights are not usable."""
    with integrity.refusing(path):
        data_path = data_path or data.recorded_path(saved.config.dataset, saved.config.data_path, path)
        config = replace(saved.config, data_path=str(data_path or data.DEFAULT_PATH))
        model = config.build_model()
        integrity.check(saved, model, path)
        model.load_state_dict(saved.weights)
    devices.prepare(model, device, training=False).eval()
    seconds = sum(row["seconds"] for row in saved.metrics) if saved.metrics else None
    epochs = saved.epoch if saved.epoch or saved.provenance else None
    return Trained(path.name, path, model, config, device, epochs, seconds, saved.provenance)

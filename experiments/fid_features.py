"""Image features for FID and KID: the standard Inception network, or a classifier of the data set itself.

Distances of Inception features are called FID and KID, those of classifier features FID_cls and KID_cls, everywhere:
the two are not comparable.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor, nn
from tqdm import tqdm

import data
from experiments import integrity
from experiments.trained import Trained
from utils import checkpoint, files
from utils.errors import UserError

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
EPOCHS, MIN_STEPS = 4, 400  # of the classifier: passes over the labelled images, more of them on a small data set
BATCH_SIZE, LEARNING_RATE = 128, 3e-3
WIDTHS, FEATURES = (16, 32, 64), 128


class FeaturesUnavailable(Exception):
    """The network is not on this machine and cannot be downloaded; metrics without features are not affected."""


@dataclass
class Extractor:
    name: str  # "inception" or "classifier"
    suffix: str  # of the metrics' names: "" or "_cls"
    network: nn.Module  # uint8 images (B, C, H, W) to features (B, F)
    batch_size: int
    device: torch.device
    test_accuracy: float | None = None  # of the classifier

    @torch.no_grad()
    def of(self, batches: Iterable[Tensor], total: int, title: str) -> Tensor:
        """Features ``(N, F)`` float32 of ``total`` images, given in batches of floats in [0, 1]."""
        found = []
        with tqdm(total=total, desc=f"{self.name} features, {title}", leave=False, disable=None) as bar:
            for batch in batches:
                # Through 8 bits, as images in files are: real and generated ones alike.
                pixels = batch.to(self.device).clamp(0, 1).mul(255).round().byte()
                found += [self.network(part) for part in pixels.split(self.batch_size)]
                bar.update(len(batch))
        return torch.cat(found)


class Inception(nn.Module):
    """The Inception network of the published FID (2048 features), as torchmetrics has it; resizes to 299 itself."""

    def __init__(self, weights: str | None):
        super().__init__()
        from torchmetrics.image.fid import NoTrainInceptionV3

        self.network = NoTrainInceptionV3("inception-v3-compat", ["2048"], weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.expand(-1, 3, -1, -1))  # grey is repeated to RGB


def inception(weights: str | None, device: torch.device) -> Extractor:
    """The standard features, from ``--inception-weights`` or downloaded once into PyTorch's cache.

    Raises UserError for another file or none there, FeaturesUnavailable where there is no download or torch-fidelity.
    """
    expected = f"expected {INCEPTION} of torch-fidelity"
    if weights is not None and not Path(weights).is_file():
        raise UserError(f"--inception-weights {weights}: no such file; {expected}")
    try:
        if weights is not None:
            checkpoint.read_tensors(Path(weights))  # the library would run any code in the file
            checkpoint.require_digest(Path(weights))
        elif (cached := Path(torch.hub.get_dir(), "checkpoints", INCEPTION)).is_file():
            try:
                checkpoint.require_digest(cached)
            except ValueError as error:
                print(f"{cached}: {error}: downloading it again")
                cached.unlink()
        network = Inception(weights)
    except Exception as error:  # a damaged file can fail anywhere
        if weights is not None:
            why = error if isinstance(error, ValueError) else type(error).__name__
            reason = f"not the weights of FID's Inception network ({why})"
            raise UserError(f"--inception-weights {weights}: {reason}; {expected}") from error
        if isinstance(error, ModuleNotFoundError):
            raise FeaturesUnavailable("FID and KID need torch-fidelity (pip install torch-fidelity)") from error
        if isinstance(error, OSError | RuntimeError):
            advice = "give the file with --inception-weights"
            raise FeaturesUnavailable(f"the Inception weights cannot be downloaded ({error}); {advice}") from error
        raise
    return Extractor("inception", "", network.to(device).eval(), 50, device)


class Classifier(nn.Module):
    """A small convolutional classifier, uint8 images ``(B, C, H, W)`` to its 128 last hidden activations."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, width in zip((channels, *WIDTHS), WIDTHS, strict=False):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * WIDTHS[-1], FEATURES), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images.float() / 127.5 - 1)


def classifier(folder: Path, trained: Trained) -> Extractor:
    """Features of a classifier trained once on a labelled data set, then kept in ``folder``. Raises UserError."""
    config, device = trained.config, trained.device
    name = config.dataset
    path = folder / f"{name}-{config.image_size}x{config.channels}.pt"
    train_set, test_set = trained.dataset("train"), trained.dataset("test")
    if train_set.labels is None:
        raise UserError(f"--features classifier: {name} has no labels to train one on; use --features inception")
    identity = fingerprint(train_set, test_set)
    with FileLock(path.with_suffix(".lock")), torch.random.fork_rng():  # one of several processes trains it
        torch.manual_seed(0)
        network = Classifier(config.channels, int(train_set.labels.max()) + 1).to(device)
        record = kept_classifier(path, network)
        if record is None or record["identity"] != identity:
            print(f"training the classifier of {name} whose features FID_cls compares: once, a few minutes on a CPU")
            fit(network, train_set, device)
            found = accuracy(network, test_set, device)
            record = {"identity": identity, "test_accuracy": found, "weights": network.state_dict()}
            checkpoint.save(path, record)
    network.load_state_dict(record["weights"])
    print(f"features of a classifier with test accuracy {record['test_accuracy']:.4f}: {path}")
    return Extractor("classifier", "_cls", network.eval(), 500, device, record["test_accuracy"])


def kept_classifier(path: Path, network: Classifier) -> dict | None:
    """What an earlier call saved; None where there is nothing, or it is damaged, which is printed: trained again."""
    if not path.is_file():
        return None
    weights = {key: value.cpu() for key, value in network.state_dict().items()}
    try:
        record = checkpoint.read_tensors(path)
        if record["identity"] and len(record["weights"]["head.bias"]) != network.head.out_features:
            return None  # of other data
        expected = {"identity": "", "test_accuracy": 0.0, "weights": weights}
        reason = integrity.difference(record | {"weights": dict(record["weights"])}, expected, "classifier")
    except Exception as error:  # a damaged file can fail anywhere in the zip, the pickle or a tensor
        reason = type(error).__name__
    if reason is None:
        return record
    print(f"{path}: this classifier is damaged ({reason}): training it again")
    return None


def fingerprint(*datasets: data.Dataset) -> str:
    """Twelve letters that tell labelled data sets apart by their labels and some of their images."""
    parts = []
    for dataset in datasets:
        some = torch.linspace(0, len(dataset) - 1, min(16, len(dataset))).long()
        parts += [np.asarray(dataset.labels), dataset[some].mul(255).round().byte().numpy()]
    return files.fingerprint(*parts)


@torch.enable_grad()
def fit(network: Classifier, train_set: data.Dataset, device: torch.device) -> None:
    """Train in place: Adam, one cycle of the learning rate, images shifted by up to two pixels."""
    per_epoch = -(-len(train_set) // BATCH_SIZE)
    epochs = max(EPOCHS, -(-MIN_STEPS // per_epoch))
    steps = epochs * per_epoch
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    train_set, labels = train_set.to(device), torch.as_tensor(train_set.labels, device=device)
    network.train()
    order = (index for _ in range(epochs) for index in torch.randperm(len(train_set)).split(BATCH_SIZE))
    for index in tqdm(order, "classifier", steps, leave=False, disable=None):
        x = train_set[index].to(device).mul(255)
        logits = network.head(network(x.roll(torch.randint(-2, 3, (2,)).tolist(), (2, 3))))
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits, labels[index.to(device)]).backward()
        optimizer.step()
        schedule.step()
    network.eval()


@torch.no_grad()
def accuracy(network: Classifier, dataset: data.Dataset, device: torch.device) -> float:
    predicted = [network.head(network(x.mul(255))).argmax(1) for x in dataset.batches(500, device)]
    return float(torch.eq(torch.cat(predicted).cpu(), torch.as_tensor(dataset.labels)).double().mean())

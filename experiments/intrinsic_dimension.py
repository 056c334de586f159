"""How many coordinates data needs: autoencoders whose code has a gap in its spectrum, and estimators of dimension.

How the settings were chosen is in docs/dimension.md.
"""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import models
from data.base import VectorDataset
from experiments import seeded_runs
from experiments.anomaly_presets import Settings
from models.base import Autoencoder
from utils import latents
from utils.errors import UserError

IRMAE: Settings = {"model": "irmae", "linear_layers": 4}
TRAINED: dict[str, Settings] = {  # models.build's arguments, and "weight_decay"
    "irmae": IRMAE,
    "irmae-wd": IRMAE | {"weight_decay": 0.2},
    "lorae": {"model": "lorae", "nuclear_weight": 0.03},
    "rrae": {"model": "rrae", "adaptive_rank": True, "target_loss": 0.01},
    "ae": {"model": "ae"},
}
ESTIMATORS: dict[str, tuple[str, Settings]] = {  # classes of skdim.id, and arguments other than its defaults
    "twonn": ("TwoNN", {}),
    "mle": ("MLE", {}),
    "lpca": ("lPCA", {}),
    "danco": ("DANCo", {"ver": "DANCoFit"}),  # tabulated calibration instead of a simulated one: minutes less
    "corrint": ("CorrInt", {}),
    "mom": ("MOM", {}),
    "tle": ("TLE", {}),
    "gride": ("GRIDE", {}),
    "fishers": ("FisherS", {}),
}
TRAINING: Settings = {"architecture": "mlp:128-64", "latent_dim": 20, "lr": 5e-3, "steps": 600, "batch_size": 128}
NEAREST = 50  # neighbours of a point whose codes give its local dimension
LOCAL_POINTS = 200  # whose local dimensions are averaged
ENCODED_ROWS = 10_000  # of the training part, whose codes have the spectrum
DANCO_LARGEST = 100  # dimension of its calibration's table
ESTIMATOR_ROWS = 2_000  # that an estimator sees, other ones for each seed


@dataclass(frozen=True)
class Points:
    """Vectors as scaled for training, float32, and where they are from."""

    train: Tensor  # (N, D)
    test: Tensor  # (M, D)
    source: str
    dimension: float | None = None  # the intrinsic one, where it is known
    global_dimension: int | None = None  # the number of coordinates that a code of all of it needs, where known


def run_once(points: Points, method: str, settings: Settings, seed: int) -> dict:
    """A row of results. Of a trained method: spectrum, errors by number of kept coordinates, local dimension."""
    estimator("lpca")  # its import takes seconds, which are no part of any method
    started = time.monotonic()
    row: dict = {"model": method, "seed": seed}
    if method in ESTIMATORS:
        try:
            value = estimate(points, method, seed)
        except ValueError:  # fewer rows or columns than it needs
            value = math.nan
        row |= {"estimate": value if math.isfinite(value) else None}
    else:
        row |= measure(train(points, method, settings, seed), points)
    return row | {"seconds": round(time.monotonic() - started, 2)}


def train(points: Points, method: str, settings: Settings, seed: int) -> Autoencoder:
    """An autoencoder of the training rows, in evaluation mode and float64. The learning rate falls to 0 as a cosine."""
    torch.manual_seed(seed)
    own = {key: settings[key] for key in settings if key not in ("steps", "batch_size", "lr", "weight_decay")}
    own["latent_dim"] = min(own["latent_dim"], points.train.shape[1])
    model = models.build(own.pop("model"), channels=points.train.shape[1], **own)
    dataset, batch_size = VectorDataset(points.train), settings["batch_size"]
    epochs = math.ceil(settings["steps"] / math.ceil(len(dataset) / batch_size))
    options = {"weight_decay": settings.get("weight_decay", 0.0), "anneal": True}
    seeded_runs.fit(f"{method}, seed {seed}", model, dataset, seed, epochs, batch_size, settings["lr"], **options)
    # The codes are computed in float64: the rounding of a float32 forward pass hides values below 1e-12 or so.
    return model.double()


@torch.no_grad()
def measure(model: Autoencoder, points: Points) -> dict:
    """What a trained model's codes say.

    ``spectrum`` (n,): singular values of the covariance of the training codes over the largest. ``errors`` (n,): mean
    squared error of the test rows over their variance, from the first 1 to n coordinates: principal components of the
    codes. ``train_error``: of the training rows, from all of them.
    """
    train, test = points.train[:: -(-len(points.train) // ENCODED_ROWS)].double(), points.test.double()
    codes = model.encode(train)
    basis = latents.basis(codes)
    falls, n = basis.spectrum.falls(), codes.shape[1]
    rank = int(falls.argmax()) + 1 if falls.size and falls.max() > 0 else n
    coordinates = basis.coordinates(model.encode(test), n)
    decoded = [model.decode(basis.codes(coordinates[:, : kept + 1])) for kept in range(n)]
    variance = test.var(dim=0, unbiased=False).mean()
    return {
        "estimate": rank,
        "falls": falls.tolist(),
        "spectrum": basis.spectrum.values.tolist(),
        "errors": [float((x - test).square().mean() / variance) for x in decoded],
        "train_error": float((model.decode(codes) - train).square().mean() / train.var(dim=0, unbiased=False).mean()),
        "local": local_dimension(basis.coordinates(codes, rank).numpy()),
    }


def local_dimension(coordinates: np.ndarray) -> float | None:
    """Mean dimension of ``(N, k)`` in neighbourhoods: lPCA, each coordinate over its standard deviation."""
    if coordinates.shape[1] < 2 or len(coordinates) <= NEAREST:
        return float(coordinates.shape[1]) if coordinates.shape[1] < 2 else None
    return neighbourhoods(coordinates / coordinates.std(axis=0), NEAREST)


def neighbourhoods(x: np.ndarray, nearest: int) -> float:
    """Mean over ``LOCAL_POINTS`` rows of what scikit-dimension's lPCA finds in the ``nearest`` neighbours of each."""
    from sklearn.neighbors import NearestNeighbors

    centres = x[np.random.default_rng(0).permutation(len(x))[:LOCAL_POINTS]]
    found = NearestNeighbors(n_neighbors=nearest).fit(x).kneighbors(centres, return_distance=False)
    return float(estimator("lpca").fit_pw(x, found, n_neighbors=nearest).dimension_pw_.mean())


def estimator(method: str, **options):
    """A new estimator of scikit-dimension, with these options and those of ``ESTIMATORS``."""
    try:
        from skdim import id as estimators  # numba makes the import slow: not for --help
    except ImportError as error:
        raise UserError(f"--methods {method}: pip install scikit-dimension ({error})") from error
    name, own = ESTIMATORS[method]
    return getattr(estimators, name)(**own, **options)


def estimate(points: Points, method: str, seed: int) -> float:
    """The estimate from up to ``ESTIMATOR_ROWS`` rows drawn with the seed; of lPCA the mean over neighbourhoods."""
    rows = np.random.default_rng(seed).permutation(len(points.train))[:ESTIMATOR_ROWS]
    x = np.unique(points.train[rows].double().numpy(), axis=0)  # a distance of 0 has no logarithm
    if method == "lpca":
        return neighbourhoods(x, min(100, len(x) - 1))  # its default
    options = {"D": min(x.shape[1], DANCO_LARGEST)} if method == "danco" else {}
    return float(estimator(method, **options).fit(x).dimension_)

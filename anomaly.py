#!/usr/bin/env python
"""Anomaly detection on tabular data: RaDOGAGA and DAGMM beside IsolationForest and OneClassSVM (RaDOGAGA, section 5.3).

python anomaly.py --dataset thyroid                      20 runs of every model, on all cores
python anomaly.py --dataset my.csv --models radogaga-log isolation-forest --runs 5
"""

import argparse
import json
import math
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.svm import OneClassSVM
from tqdm import tqdm

import models
from data import tabular
from utils import cli, device, files, training
from utils.errors import Diverged, UserError

METRICS = ("precision", "recall", "f1", "roc_auc", "average_precision")
TITLES = {
    "radogaga-d": "RaDOGAGA, h(d) = d",
    "radogaga-log": "RaDOGAGA, h(d) = log d",
    "dagmm": "DAGMM",
    "isolation-forest": "IsolationForest",
    "one-class-svm": "OneClassSVM",
}

# What a neural model is trained with: DAGMM's networks and mixtures are those of its paper (section 4.2 and appendix).
# docs/anomaly.md says how RaDOGAGA's values were chosen: on the training half alone.
Settings = dict[str, object]
PRESETS: dict[str, dict[str, Settings]] = {}


def settings_of(dataset: str, model: str, given: Settings) -> Settings:
    """The preset of a data set and model (of ``"default"`` for one's own file), overridden by what the user gave."""
    base = dataset.removesuffix("-rev") if dataset not in PRESETS else dataset
    return PRESETS.get(base, PRESETS["default"])[model] | given


def train_network(x: torch.Tensor, settings: Settings, seed: int, computing_on: torch.device) -> models.Autoencoder:
    """A RaDOGAGA or DAGMM trained on the vectors ``x`` ``(N, D)``, its mixture fixed to that of all of them.

    Raises:
        UserError: fewer vectors than components. Diverged: the loss is no finite number any more.
    """
    settings = dict(settings)
    name, batch_size, epochs, rate = (settings.pop(key) for key in ("model", "batch_size", "epochs", "lr"))
    if settings["components"] > len(x):
        raise UserError(
            f"--components {settings['components']}: a mixture needs at least one training sample for each, found {len(x)} "
            "normal rows in the training half"
        )
    torch.manual_seed(seed)
    model = models.build(name, channels=x.shape[1], **settings).to(computing_on)
    optimizer = training.make_optimizer(model, rate)
    dataset = tabular.VectorDataset(x.to(computing_on))
    for epoch in range(1, epochs + 1):
        totals = training.Totals()
        batches = dataset.batches(
            batch_size, True, torch.Generator().manual_seed(seed * 1_000_003 + epoch), computing_on
        )
        for _ in training.train_steps(model, batches, optimizer, totals):
            pass
        if not math.isfinite(totals.means()["loss"]):
            raise Diverged(
                f"{name}, seed {seed}: the training diverged in epoch {epoch} ({totals.means()}); try a lower --lr"
            )
    model.eval()
    model.fit_prior(dataset.batches(4096, device=computing_on))
    return model


@torch.no_grad()
def network_scores(model: models.Autoencoder, x: torch.Tensor, computing_on: torch.device) -> np.ndarray:
    """``(N,)`` energies, −log of the density that the model estimates."""
    batches = tabular.VectorDataset(x).batches(4096, device=computing_on)
    return torch.cat([model.sample_energy(batch).cpu() for batch in batches]).numpy()


def scores_of(
    train: torch.Tensor, test: torch.Tensor, settings: Settings, seed: int, computing_on: torch.device
) -> np.ndarray:
    """Train on normal vectors and score others, higher the stranger: ``(N, D)`` and ``(M, D)`` to ``(M,)``."""
    if settings["model"] == "isolation-forest":
        forest = IsolationForest(settings["n_estimators"], random_state=seed).fit(train.numpy())
        return -forest.score_samples(test.numpy())
    if settings["model"] == "one-class-svm":
        # Its cost grows with the square of the samples.
        kept = np.random.default_rng(seed).permutation(len(train))[: settings["train_size"]]
        machine = OneClassSVM(nu=settings["nu"], gamma="scale").fit(train.numpy()[kept])
        return -machine.score_samples(test.numpy())
    return network_scores(train_network(train, settings, seed, computing_on), test, computing_on)


def measure(scores: np.ndarray, anomaly: np.ndarray, ratio: float, seed: int) -> dict[str, float]:
    """Precision, recall and F1 when the share ``ratio`` of highest scores is flagged; ROC-AUC and average precision.

    Ties at the threshold, of duplicate rows say, are broken at random: exactly the share is flagged.
    """
    flagged = np.zeros(len(scores), dtype=bool)
    order = np.lexsort((np.random.default_rng(seed).random(len(scores)), -scores))
    flagged[order[: max(1, round(ratio * len(scores)))]] = True
    hits = int((flagged & anomaly).sum())
    precision, recall = hits / flagged.sum(), hits / anomaly.sum()
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(2 * precision * recall / (precision + recall)) if hits else 0.0,
        "roc_auc": float(roc_auc_score(anomaly, scores)),
        "average_precision": float(average_precision_score(anomaly, scores)),
    }

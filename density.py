#!/usr/bin/env python
"""Estimated against true density on toy data whose density is known (RaDOGAGA, arXiv 1910.04329, section 5.2).

python density.py                                     data generated from the seed
python density.py --data-path toy.csv --runs 5        the published data
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from tqdm import tqdm

import models
from data import tabular
from utils import cli, devices, files, loop, plots
from utils.errors import Diverged, UserError

MODES = 3  # of the toy data's mixture
# Of the trained mixtures. With no more than the data has, and with dropout, the estimation network of about every other
# seed joins two modes for good.
COMPONENTS = 6
NETWORK = {"architecture": "mlp:64-32", "channels": tabular.TOY_FEATURES, "latent_dim": 3, "components": COMPONENTS}
# λ1 = 1e5 and λ2 = 1e4 on squared errors summed over the 16 features; the model's D is their mean. The width of the
# noise sets the unit of the code: 0.1 makes codes as large as a fresh network's, so that training need not grow them.
SCALE = tabular.TOY_FEATURES
RADOGAGA = {"name": "radogaga", "prior": "gmm", "lambda2": 1e4 * SCALE, "noise_width": 0.1, "estimation_dropout": 0.0}
SETTINGS = {
    "radogaga-d": RADOGAGA | {"h": "d", "lambda1": 1e5 * SCALE},
    "radogaga-log": RADOGAGA | {"h": "log", "lambda1": 1e4},
    # At its paper's 0.1 and 0.005 and RaDOGAGA's learning rate DAGMM does worse still: docs/density.md.
    "dagmm": {"name": "dagmm", "lambda_energy": 0.01, "lambda_covariance": 5e-4},
}
LEARNING_RATES = {"radogaga-d": 1e-2, "radogaga-log": 1e-2, "dagmm": 1e-4}
TITLES = {
    "radogaga-d": "RaDOGAGA, h(d) = d",
    "radogaga-log": "RaDOGAGA, h(d) = log d",
    "dagmm": "DAGMM",
    "pca-gmm": "PCA and Gaussian mixture",
}


def parse_arguments() -> argparse.Namespace:
    parser = cli.Parser(__doc__.splitlines()[0])
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data-path",
        "--data_path",
        metavar="FILE",
        help="the published CSV (16 inputs, density, component), or its folder (default: generate such data)",
    )
    group.add_argument("--size", type=cli.positive, default=10_000, metavar="N", help="points to generate")
    group = parser.add_argument_group("model")
    group.add_argument(
        "--models", nargs="+", choices=list(TITLES), default=list(TITLES), help="pca-gmm, linear, is the ceiling"
    )
    group.add_argument("--runs", type=cli.positive, default=5, metavar="R", help="seeds, from --seed on")
    group.add_argument("--epochs", type=cli.positive, default=60, help="passes over the data")
    group.add_argument(
        "--lr",
        type=cli.positive_float,
        help="learning rate of Adam, falls to 0 as a cosine (default: 0.01, and 0.0001 for dagmm)",
    )
    cli.add_run(parser, batch_size=250)
    cli.add_results(parser.add_argument_group("files"))
    return parser.parse_args()


def train(toy: tabular.Toy, name: str, seed: int, args: argparse.Namespace, computing_on: torch.device):
    """A trained model of ``SETTINGS``, its mixture fixed to that of all points. Raises Diverged."""
    torch.manual_seed(seed)
    model = models.build(**SETTINGS[name], **NETWORK).to(computing_on)
    optimizer = loop.make_optimizer(model, args.lr or LEARNING_RATES[name])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
    points = tabular.VectorDataset(toy.vectors.to(computing_on))
    step = loop.Step(model, optimizer, points, eager=True)
    for epoch in tqdm(range(1, args.epochs + 1), f"{name}, seed {seed}", leave=False, disable=None):
        *_, totals = loop.epoch(step, args.batch_size, seed, epoch)
        if not math.isfinite(totals.means()["loss"]):
            raise Diverged(
                f"{name}, seed {seed}: the loss is {totals.means()['loss']} in epoch {epoch}: try a lower --lr"
            )
        schedule.step()
    model.eval()
    model.fit_prior(points.batches(1000, device=computing_on))
    return model


@torch.no_grad()
def log_density(toy: tabular.Toy, name: str, seed: int, args: argparse.Namespace) -> np.ndarray:
    """``(N,)`` float64, log of the density that a trained model estimates at each point, up to a constant."""
    if name == "pca-gmm":
        codes = PCA(3, random_state=seed).fit_transform(toy.vectors.double().numpy())
        return GaussianMixture(MODES, random_state=seed).fit(codes).score_samples(codes)
    computing_on = devices.choose(args.gpu)
    with torch.enable_grad():
        model = train(toy, name, seed, args, computing_on)
    batches = tabular.VectorDataset(toy.vectors).batches(1000, device=computing_on)
    estimate = -torch.cat([model.energy(x).cpu() for x in batches]).double().numpy()
    if not np.isfinite(estimate).all() or np.ptp(estimate) == 0:
        raise Diverged(f"{name}, seed {seed}: the estimated densities are not finite or all the same: try a lower --lr")
    return estimate


def correlations(density: np.ndarray, log_estimate: np.ndarray) -> dict[str, float]:
    """Pearson r between the densities themselves and Spearman ρ, both with the true density ``(N,)``.

    The estimate is defined up to a factor, which neither depends on; dividing by its largest value keeps exp from
    overflowing.
    """
    estimate = np.exp(log_estimate - log_estimate.max())
    return {
        "pearson": float(pearsonr(density, estimate).statistic),
        "spearman": float(spearmanr(density, log_estimate).statistic),
    }


def main() -> None:
    args = parse_arguments()
    toy = tabular.generate_toy(args.size, args.seed) if args.data_path is None else tabular.load_toy(args.data_path)
    if len(toy.density) < 2 * COMPONENTS:
        where = f"--size {args.size}" if args.data_path is None else f"{args.data_path}: {len(toy.density)} points"
        raise UserError(f"{where}: mixtures of {COMPONENTS} Gaussians need at least {2 * COMPONENTS} points")
    if np.ptp(toy.density) == 0:
        raise UserError(
            f"{args.data_path}: the density (column 17) is the same in every row: there is nothing to compare"
        )
    source = args.data_path or f"generated, seed {args.seed}"
    print(f"{len(toy.density):,} points in {toy.vectors.shape[1]} dimensions ({source})")

    rows, estimates = [], {}
    for name in dict.fromkeys(args.models):
        for seed in range(args.seed, args.seed + args.runs):
            log_estimate = log_density(toy, name, seed, args)
            row = {"model": name, "seed": seed, **correlations(toy.density, log_estimate)}
            rows.append(row)
            estimates.setdefault(name, log_estimate)
            print(
                f"{TITLES[name]}, seed {seed}: Pearson r {row['pearson']:.4f}  Spearman ρ {row['spearman']:.4f}",
                flush=True,
            )

    summary = {
        name: {
            key: float(np.median([row[key] for row in rows if row["model"] == name])) for key in ("pearson", "spearman")
        }
        for name in estimates
    }
    figure = plots.density_scatter(
        toy.density,
        {f"{TITLES[name]}: r = {correlations(toy.density, e)['pearson']:.4f}": e for name, e in estimates.items()},
        toy.component,
    )
    path = Path(args.save_path) / "toy" / "density" / "density.png"
    plots.save_figure(path, figure)
    rates = {name: args.lr or LEARNING_RATES[name] for name in estimates if name in LEARNING_RATES}
    settings = {"epochs": args.epochs, "lr": rates, "batch_size": args.batch_size, "models": SETTINGS, **NETWORK}
    content = {"data": str(source), "points": len(toy.density), "settings": settings, "median": summary, "runs": rows}
    files.write_json(path.with_suffix(".json"), content)
    print(f"saved {path} and {path.with_suffix('.json')}")
    medians = ", ".join(f"{name} {values['pearson']:.4f}" for name, values in summary.items())
    print(f"Pearson r of estimated and true density, median of {args.runs} seeds: {medians}")


if __name__ == "__main__":
    cli.run(main)

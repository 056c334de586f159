#!/usr/bin/env python
"""Estimated against true density on toy data whose density is known (RaDOGAGA, arXiv 1910.04329, section 5.2).

python density.py                                     data generated from the seed
python density.py --data-path toy.csv --runs 5        the published data
"""

import argparse
from pathlib import Path

import numpy as np

from data import toy
from experiments import seeded_runs
from utils import cli, devices, files, flags
from utils.errors import UserError

MODES = 3  # of the toy data's mixture
# Of the trained mixtures. With no more than the data has, and with dropout, the estimation network of about every other
# seed joins two modes for good.
COMPONENTS = 6
NETWORK = {"architecture": "mlp:64-32", "latent_dim": 3, "components": COMPONENTS}
# λ1 = 1e5 and λ2 = 1e4 on squared errors summed over the 16 features; the model's D is their mean. The width of the
# noise sets the unit of the code: 0.1 makes codes as large as a fresh network's, so that training need not grow them.
SCALE = toy.FEATURES
RADOGAGA = {"name": "radogaga", "prior": "gmm", "lambda2": 1e4 * SCALE, "noise_width": 0.1, "estimation_dropout": 0.0}
# At its paper's 0.1 and 0.005 and RaDOGAGA's learning rate DAGMM does worse still: docs/density.md.
DAGMM = {"name": "dagmm", "lambda_energy": 0.01, "lambda_covariance": 5e-4}
SETTINGS = {
    "radogaga-d": RADOGAGA | {"h": "d", "lambda1": 1e5 * SCALE},
    "radogaga-log": RADOGAGA | {"h": "log", "lambda1": 1e4},
    "dagmm": DAGMM,
    "dagmm-no-residual": DAGMM | {"residual": False},
}
LEARNING_RATES = {"radogaga-d": 1e-2, "radogaga-log": 1e-2, "dagmm": 1e-4, "dagmm-no-residual": 1e-4}
METRICS = ("pearson", "spearman")
TITLES = seeded_runs.TITLES | {"dagmm-no-residual": "DAGMM, z alone", "pca-gmm": "PCA and Gaussian mixture"}


def parse_arguments() -> argparse.Namespace:
    parser = cli.Parser(__doc__.splitlines()[0])
    group = parser.add_argument_group("data")
    published = "the published CSV (16 inputs, density, component), or its folder (default: generate such data)"
    group.add_argument("--data-path", metavar="FILE", help=published)
    group.add_argument("--size", type=cli.positive, default=10_000, metavar="N", help="points to generate")
    group = parser.add_argument_group("model")
    titles = list(TITLES)
    group.add_argument("--models", nargs="+", choices=titles, default=titles, help="pca-gmm, linear, is the ceiling")
    group.add_argument("--epochs", type=cli.positive, default=60, help="passes over the data")
    group.add_argument("--batch-size", type=cli.positive, default=250, metavar="B", help="points at a time")
    rate = "learning rate of Adam, falls to 0 as a cosine (default: 0.01, and 0.0001 for DAGMM)"
    group.add_argument("--lr", type=cli.positive_float, help=rate)
    seeded_runs.add_flags(parser.add_argument_group("computation"), runs=5)
    group = parser.add_argument_group("files")
    cli.add_results(group)
    flags.add_figures(group)
    return parser.parse_args()


def log_density(points: toy.Toy, name: str, seed: int, training: dict, gpu: bool) -> np.ndarray:
    """``(N,)`` float64, log of the density that a trained model estimates at each point, up to a constant."""
    if name == "pca-gmm":
        from sklearn.decomposition import PCA
        from sklearn.mixture import GaussianMixture

        codes = PCA(3, random_state=seed).fit_transform(points.vectors.double().numpy())
        return GaussianMixture(MODES, random_state=seed).fit(codes).score_samples(codes)
    run, x, settings = f"{name}, seed {seed}", points.vectors, NETWORK | SETTINGS[name] | training
    settings |= {"model": settings.pop("name"), "mixture": "network"}
    device = devices.choose(gpu)
    scores = seeded_runs.energies(seeded_runs.train(run, x, settings, seed, device, anneal=True), x, device)
    return -seeded_runs.require_scores(run, scores).astype(np.float64)


def correlations(density: np.ndarray, log_estimate: np.ndarray) -> dict[str, float]:
    """Pearson r between the densities themselves and Spearman ρ, both with the true density ``(N,)``."""
    from scipy.stats import pearsonr, spearmanr

    estimate = np.exp(log_estimate - log_estimate.max())  # up to a factor, and no overflow
    pearson, spearman = pearsonr(density, estimate).statistic, spearmanr(density, log_estimate).statistic
    return {"pearson": float(pearson), "spearman": float(spearman)}


def run_once(points: toy.Toy, name: str, seed: int, training: dict, gpu: bool) -> tuple[dict, np.ndarray]:
    """Model, seed and correlations of one run, and the estimated log densities ``(N,)``."""
    log_estimate = log_density(points, name, seed, training, gpu)
    return {"model": name, "seed": seed, **correlations(points.density, log_estimate)}, log_estimate


def load_points(args: argparse.Namespace) -> toy.Toy:
    """The points that the flags ask for. Raises UserError where they are too few, or all of the same density."""
    points = toy.generate(args.size, args.seed) if args.data_path is None else toy.load(args.data_path)
    if len(points.density) < 2 * COMPONENTS:
        where = f"--size {args.size}" if args.data_path is None else f"{args.data_path}: {len(points.density)} points"
        raise UserError(f"{where}: mixtures of {COMPONENTS} Gaussians need at least {2 * COMPONENTS} points")
    if np.ptp(points.density) == 0:
        raise UserError(f"{args.data_path}: the density (column 17) is the same in every row: nothing to compare")
    return points


def main() -> None:
    args = parse_arguments()
    from utils import plots  # slow to import: not for --help

    points = load_points(args)
    print(f"{len(points.density):,} points in {points.vectors.shape[1]} dimensions ({points.source})", flush=True)
    gpu = devices.choose(args.gpu).type != "cpu"
    rates = {name: args.lr or rate for name, rate in LEARNING_RATES.items() if name in args.models}
    chosen = list(dict.fromkeys(args.models))
    seeds = range(args.seed, args.seed + args.runs)
    training = {"epochs": args.epochs, "batch_size": args.batch_size}
    tasks = [(name, seed, training | {"lr": rates.get(name)}, gpu) for name in chosen for seed in seeds]
    rows, estimates = [], {}
    for row, log_estimate in seeded_runs.run_all(run_once, points, tasks, args.jobs):
        rows.append(row)
        if row["seed"] == args.seed:
            estimates[row["model"]] = log_estimate
        found = f"Pearson r {row['pearson']:.4f}  Spearman ρ {row['spearman']:.4f}"
        print(f"{TITLES[row['model']]}, seed {row['seed']}: {found}", flush=True)
    rows.sort(key=lambda row: (chosen.index(row["model"]), row["seed"]))
    own = {name: [row for row in rows if row["model"] == name] for name in chosen}
    summary = {name: {key: float(np.median([row[key] for row in own[name]])) for key in METRICS} for name in chosen}

    titles = {f"{TITLES[name]}: r = {own[name][0]['pearson']:.4f}": estimates[name] for name in chosen}
    path = Path(args.save_path) / "toy" / "density" / f"density.{args.format}"
    plots.save_figure(path, plots.density_scatter(points.density, titles, points.component), args.dpi)
    settings = {**training, "lr": rates, "models": SETTINGS, "channels": toy.FEATURES, **NETWORK}
    content = {"data": args.data_path or points.source, "points": len(points.density), "settings": settings}
    content["provenance"] = seeded_runs.run_provenance(gpu, args.seed)
    files.write_json(path.with_suffix(".json"), content | {"median": summary, "runs": rows})
    print(f"saved {path} and {path.with_suffix('.json')}")
    medians = ", ".join(f"{name} {values['pearson']:.4f}" for name, values in summary.items())
    print(f"Pearson r of estimated and true density, median of {args.runs} seeds: {medians}")


if __name__ == "__main__":
    cli.run(main)

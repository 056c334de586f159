#!/usr/bin/env python
"""Pictures from a trained model: reconstruct, interpolate, sample, walk along principal components, map the images.

python generation.py --task interpolation --dataset mnist --model-name irmae
python generation.py --task pca
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import data
from experiments import evaluation
from experiments.trained import FIT_SIZE, Trained
from utils import cli, files, latents, plots
from utils.errors import UserError

COMPONENTS = 4  # of pca and gmm
SHOWN = 1_000  # test images that are looked at
REACH = 2.0  # standard deviations that pca and traverse walk to either side


def first_images(trained: Trained, split: str, size: int | None, needed: int = 0, what: str = "") -> data.Dataset:
    """The first ``size`` images of a split, 1,000 unless given. Raises UserError for fewer than the grid needs."""
    dataset = trained.dataset(split)
    if size is not None and size > len(dataset):
        raise UserError(f"-N {size}: the {split} set of {trained.config.dataset} has {len(dataset)}")
    dataset = dataset.first(size or SHOWN)
    if needed > len(dataset):
        found = f"{needed} test images but the sample has {len(dataset)}"
        raise UserError(f"{what} needs {found}: raise -N or lower -X or -Y")
    return dataset


def fitted_codes(args: argparse.Namespace, trained: Trained) -> Tensor:
    """Codes of the images of ``--fit-to``, to which a density or principal components are fitted."""
    if args.sample is None:
        return trained.training_codes() if args.fit_to == "train" else trained.codes("test")
    if args.sample < 2:
        raise UserError(f"-N {args.sample}: a distribution of codes needs at least 2 images")
    return trained.codes(first_images(trained, args.fit_to, args.sample))


def reconstruction(args: argparse.Namespace, trained: Trained) -> tuple[Tensor, dict]:
    """test images, each beside its reconstruction; of rows of a file the error of each column"""
    if trained.config.file:
        return errors_by_column(args, trained)
    shown = args.X * args.Y
    dataset = first_images(trained, "test", args.sample, shown, f"a grid of {args.X} x {args.Y} images")
    inputs, outputs = dataset[:], trained.decode(trained.codes(dataset))
    errors = F.mse_loss(outputs, inputs, reduction="none").mean(dim=(1, 2, 3)).double()
    numbers = {"mean_squared_error": float(errors.mean()), "worst_squared_error": float(errors.max())}
    return plots.side_by_side(inputs[:shown], outputs[:shown]), {"images": len(dataset)} | numbers


def errors_by_column(args: argparse.Namespace, trained: Trained) -> "tuple[plots.Figure, dict]":
    """The reconstruction error of each column of a file: scaled, in its own units, and as R² on the test rows."""
    dataset = first_images(trained, "test", args.sample)
    names = trained.scaling.names
    outputs = torch.cat([x.cpu() for x in trained.decode_batches(trained.codes(dataset))])
    scaled = [x.double().flatten(1).numpy() for x in (dataset[:], outputs)]
    units = [trained.scaling.to_units(x).reshape(len(dataset), -1) for x in (dataset[:], outputs)]
    mse = np.square(scaled[1] - scaled[0]).mean(axis=0)
    rmse = np.sqrt(np.square(units[1] - units[0]).mean(axis=0))
    variance = scaled[0].var(axis=0)
    explained = [float(1 - e / v) if v > 0 else None for e, v in zip(mse, variance, strict=True)]
    columns = zip(names, mse.tolist(), rmse.tolist(), explained, strict=True)
    rows = [dict(zip(("column", "mse_scaled", "rmse", "r2"), row, strict=True)) for row in columns]
    numbers = {"rows": len(dataset), "mean_squared_error": float(mse.mean())}
    numbers |= {"r2": float(1 - mse.sum() / variance.sum()) if variance.any() else None, "columns": rows}
    return plots.bars(names, mse, "column", "mean squared error, scaled"), numbers


def interpolation(args: argparse.Namespace, trained: Trained) -> tuple[Tensor, dict]:
    """straight lines between the codes of test images, both ends included"""
    if args.Y < 2:
        raise UserError("-Y 1: an interpolation needs at least 2 columns, one for each end")
    dataset = first_images(trained, "test", args.sample, 2 * args.X, f"interpolating in {args.X} rows")
    ends = trained.codes(dataset.first(2 * args.X))
    steps = torch.linspace(0, 1, args.Y)
    codes = torch.lerp(ends[0::2, None], ends[1::2, None], steps[:, None]).flatten(0, 1)
    numbers = {"pairs": [[2 * row, 2 * row + 1] for row in range(args.X)], "steps": steps.tolist()}
    return trained.decode(codes), numbers


def mvg(args: argparse.Namespace, trained: Trained) -> tuple[Tensor, dict]:
    """samples of a multivariate Gaussian fitted to the codes"""
    codes = fitted_codes(args, trained)
    drawn = latents.sample_gaussian(codes, args.X * args.Y, args.seed)
    return trained.decode(drawn), {"fitted_to": len(codes), "seed": args.seed}


def gmm(args: argparse.Namespace, trained: Trained) -> tuple[Tensor, dict]:
    """samples of a mixture of -d Gaussians fitted to the codes"""
    codes = fitted_codes(args, trained)
    components = args.d or COMPONENTS
    mixture = latents.fit_mixture(codes, components, args.seed)
    drawn = latents.sample_mixture(mixture, args.X * args.Y, args.seed)
    numbers = {"fitted_to": len(codes), "components": components, "weights": mixture.weights_.tolist()}
    numbers |= {"mean_log_likelihood": float(mixture.score(codes.double().numpy())), "seed": args.seed}
    return trained.decode(drawn), numbers


def pca(args: argparse.Namespace, trained: Trained) -> tuple[Tensor, dict]:
    """±2σ around the mean code along its first two principal components"""
    latent_dim = trained.model.latent_dim
    if latent_dim < 2:
        raise UserError(f"{trained.path}: a code of n = 1 has no second principal component: use --task traverse")
    dimensions = args.d or min(COMPONENTS, latent_dim)
    if dimensions < 2:
        raise UserError(f"-d {args.d}: the grid walks along two principal components, give at least 2")
    codes = fitted_codes(args, trained)
    fitted = latents.fit_pca(codes, dimensions, args.seed)
    deviations = np.sqrt(fitted.explained_variance_)
    positions = np.zeros((args.X, args.Y, dimensions))
    positions[:, :, 0] = np.linspace(-REACH, REACH, args.X)[:, None] * deviations[0]
    positions[:, :, 1] = np.linspace(-REACH, REACH, args.Y)[None, :] * deviations[1]
    grid = torch.from_numpy(fitted.inverse_transform(positions.reshape(-1, dimensions))).float()
    numbers = {"fitted_to": len(codes), "standard_deviations": deviations.tolist()}
    numbers["explained_variance_ratio"] = fitted.explained_variance_ratio_.tolist()
    return trained.decode(grid), numbers


def traverse(args: argparse.Namespace, trained: Trained) -> tuple[Tensor, dict]:
    """±2σ around the mean code, a row for each of the -X dimensions with most variance"""
    codes = fitted_codes(args, trained)
    walked, order = latents.traverse(codes, args.X, args.Y, REACH)
    shown = order[: args.X]
    deviations = codes.double().std(dim=0)[shown].tolist()
    numbers = {"fitted_to": len(codes), "dimensions": shown.tolist(), "standard_deviations": deviations}
    return trained.decode(walked), numbers


def prior(args: argparse.Namespace, trained: Trained) -> tuple[Tensor, dict]:
    """samples of the model's own prior"""
    return trained.decode(trained.sample("prior", args.X * args.Y, args.seed)), {"seed": args.seed}


def conditional(args: argparse.Namespace, trained: Trained) -> tuple[Tensor, dict]:
    """a row for each class of infocat-vae or catvae, whatever -X is, sampled from the class's prior"""
    classes = torch.arange(trained.model.num_classes).repeat_interleave(args.Y)
    drawn = trained.model.sample_classes(classes, torch.Generator().manual_seed(args.seed))
    return trained.decode(drawn), {"classes": trained.model.num_classes, "seed": args.seed}


def centroids(args: argparse.Namespace, trained: Trained) -> tuple[Tensor, dict]:
    """a row from the mean of each class's prior to the next one's, the last to the first (infocat-vae, catvae)"""
    ends = trained.model.class_centroids().cpu()
    steps = torch.linspace(0, 1, args.Y)
    codes = torch.lerp(ends[:, None], ends.roll(-1, 0)[:, None], steps[:, None]).flatten(0, 1)
    return trained.decode(codes), {"classes": len(ends), "steps": steps.tolist()}


def tsne(args: argparse.Namespace, trained: Trained) -> "tuple[plots.Figure, dict]":
    """a map of test images and as many samples of the Gaussian fitted to the training codes

    The map is made of pixels, not codes: it shows whether the decoded samples lie where real images do.
    """
    from sklearn.manifold import TSNE

    dataset = first_images(trained, "test", args.sample)
    drawn = torch.cat([x.cpu() for x in trained.decode_batches(trained.sample("mvg", len(dataset), args.seed))])
    pixels = torch.cat([dataset[:], drawn]).flatten(1).numpy()
    perplexity = min(30.0, (len(pixels) - 1) / 3)
    embedding = TSNE(perplexity=perplexity, init="pca", random_state=args.seed)
    points = embedding.fit_transform(pixels)
    labels = None if dataset.labels is None else dataset.labels.numpy()
    numbers = {"test_images": len(dataset), "sampled_images": len(drawn), "perplexity": perplexity}
    numbers |= {"kl_divergence": float(embedding.kl_divergence_), "seed": args.seed, "fit_to": "train"}
    return plots.embedding(points, labels, dataset.classes, np.arange(len(points)) >= len(dataset)), numbers


GRIDS = (reconstruction, interpolation, mvg, gmm, pca, traverse, prior, conditional, centroids)
TASKS = {task.__name__: task for task in (*GRIDS, tsne)}


def main() -> None:
    parser = cli.Parser(__doc__.splitlines()[0])
    add = parser.add_argument_group("task").add_argument
    what = "; ".join(f"{name}: {task.__doc__.splitlines()[0].rstrip('.')}" for name, task in TASKS.items())
    add("--task", choices=list(TASKS), default="reconstruction", help=what)
    add("-X", type=cli.positive, default=10, metavar="ROWS", help="rows of the grid")
    add("-Y", type=cli.positive, default=10, metavar="COLUMNS", help="columns of the grid")
    what = f"principal components of pca, Gaussians of gmm (default: {COMPONENTS}, or n where the code has fewer)"
    add("-d", type=cli.positive, metavar="D", help=what)
    what = "images whose codes mvg, gmm, pca and traverse are fitted to; test, as released with IRMAE"
    add("--fit-to", choices=("train", "test"), default="test", help=what)
    what = f"images to encode (default: {SHOWN} test images; to fit to, all test images or {FIT_SIZE} training images)"
    add("-N", "--test-size", dest="sample", type=cli.positive, metavar="N", help=what)
    evaluation.add_flags(parser)
    args = parser.parse_args()

    trained = evaluation.from_args(args)
    picture, numbers = TASKS[args.task](args, trained)
    path = evaluation.output_path(args, args.task, trained.name)
    if isinstance(picture, Tensor):
        columns = args.Y * (2 if args.task == "reconstruction" else 1)
        path = evaluation.save_decoded(path, trained, picture, columns)
    else:
        plots.save_figure(path, picture)
    if "columns" in numbers:
        files.write_csv(path.with_suffix(".csv"), numbers["columns"])
    about = trained.summary() | {"task": args.task, "fit_to": args.fit_to}
    files.write_json(path.with_suffix(".json"), about | numbers)
    error = f"mean squared error {numbers['mean_squared_error']:.4g}; " if "columns" in numbers else ""
    print(f"{args.task} of {trained.name} on {args.dataset}: {error}{path}")


if __name__ == "__main__":
    cli.run(main)

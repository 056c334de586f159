#!/usr/bin/env python
"""Pictures from a trained model: reconstruct, interpolate, sample, walk along principal components, map the images.

python generation.py --task interpolation --dataset mnist --model-name irmae
python generation.py --task pca
"""

import argparse
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import data
from experiments import evaluation
from experiments.trained import FIT_SIZE, Trained
from utils import cli, files, latents, plots
from utils.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPONENTS = 4  # of pca and gmm
SHOWN = 1_000  # test images that are looked at
REACH = 2.0  # standard deviations that pca and traverse walk to either side

Grid = tuple[Tensor, int]  # images (N, C, H, W), and how many stand in a row


def parse_arguments() -> argparse.Namespace:
    parser = cli.Parser(__doc__.splitlines()[0])
    group = parser.add_argument_group("task")
    what = "; ".join(f"{name}: {task.__doc__.splitlines()[0].rstrip('.')}" for name, task in TASKS.items())
    group.add_argument("--task", choices=list(TASKS), default="reconstruction", help=what)
    group.add_argument("-X", type=cli.positive, default=10, metavar="ROWS", help="rows of the grid")
    group.add_argument("-Y", type=cli.positive, default=10, metavar="COLUMNS", help="columns of the grid")
    group.add_argument(
        "-d",
        type=cli.positive,
        metavar="D",
        help=f"principal components of pca, Gaussians of gmm (default: {COMPONENTS}, or n where the code has fewer "
        "dimensions)",
    )
    group.add_argument(
        "-N",
        "--test-size",
        dest="sample",
        type=cli.positive,
        metavar="N",
        help=f"images to encode (default: {SHOWN} test images, or {FIT_SIZE} training images to fit a density to)",
    )
    evaluation.add_flags(parser)
    return parser.parse_args()


def first_images(trained: Trained, split: str, size: int | None, most: int) -> data.Dataset:
    """The first ``size`` images of a split; unless given, up to ``most``."""
    dataset = trained.dataset(split)
    if size is None:
        return dataset.first(min(most, len(dataset)))
    if size > len(dataset):
        raise UserError(f"-N {size}: the {split} set of {trained.config.dataset} has {len(dataset)} images")
    return dataset.first(size)


def require_images(dataset: data.Dataset, images: int, what: str) -> None:
    """Raises UserError where the grid has more images than the sample."""
    if images > len(dataset):
        raise UserError(
            f"{what} needs {images} test images but the sample has {len(dataset)}: raise -N or lower -X or -Y"
        )


def training_codes(args: argparse.Namespace, trained: Trained) -> Tensor:
    """Codes of training images, to which a density or principal components are fitted."""
    if args.sample is None:
        return trained.training_codes()
    if args.sample < 2:
        raise UserError(f"-N {args.sample}: a distribution of codes needs at least 2 images")
    return trained.codes(first_images(trained, "train", args.sample, FIT_SIZE))


def reconstruction(args: argparse.Namespace, trained: Trained) -> tuple[Grid, dict]:
    """test images, each beside its reconstruction"""
    dataset = first_images(trained, "test", args.sample, SHOWN)
    number = args.X * args.Y
    require_images(dataset, number, f"a grid of {args.X} x {args.Y} images")
    inputs, outputs = dataset[:], trained.decode(trained.codes(dataset))
    errors = F.mse_loss(outputs, inputs, reduction="none").mean(dim=(1, 2, 3)).double()
    numbers = {
        "images": len(dataset),
        "mean_squared_error": float(errors.mean()),
        "worst_squared_error": float(errors.max()),
    }
    return (plots.side_by_side(inputs[:number], outputs[:number]), 2 * args.Y), numbers


def interpolation(args: argparse.Namespace, trained: Trained) -> tuple[Grid, dict]:
    """straight lines between the codes of test images, both ends included"""
    if args.Y < 2:
        raise UserError("-Y 1: an interpolation needs at least 2 columns, one for each end")
    dataset = first_images(trained, "test", args.sample, SHOWN)
    require_images(dataset, 2 * args.X, f"interpolating in {args.X} rows")
    ends = trained.codes(dataset.first(2 * args.X))
    steps = torch.linspace(0, 1, args.Y)
    codes = torch.stack([torch.lerp(*ends[2 * row : 2 * row + 2], step) for row in range(args.X) for step in steps])
    numbers = {"pairs": [[2 * row, 2 * row + 1] for row in range(args.X)], "steps": steps.tolist()}
    return (trained.decode(codes), args.Y), numbers


def mvg(args: argparse.Namespace, trained: Trained) -> tuple[Grid, dict]:
    """samples of a multivariate Gaussian fitted to the training codes"""
    codes = training_codes(args, trained)
    drawn = latents.sample_gaussian(codes, args.X * args.Y, args.seed)
    return (trained.decode(drawn), args.Y), {"fitted_to": len(codes), "seed": args.seed}


def gmm(args: argparse.Namespace, trained: Trained) -> tuple[Grid, dict]:
    """samples of a mixture of -d Gaussians fitted to the training codes"""
    codes = training_codes(args, trained)
    components = args.d or COMPONENTS
    mixture = latents.fit_mixture(codes, components, args.seed)
    drawn = latents.sample_mixture(mixture, args.X * args.Y, args.seed)
    numbers = {
        "fitted_to": len(codes),
        "components": components,
        "weights": mixture.weights_.tolist(),
        "mean_log_likelihood": float(mixture.score(codes.double().numpy())),
        "seed": args.seed,
    }
    return (trained.decode(drawn), args.Y), numbers


def pca(args: argparse.Namespace, trained: Trained) -> tuple[Grid, dict]:
    """±2σ around the mean code along its first two principal components"""
    latent_dim = trained.model.latent_dim
    if latent_dim < 2:
        raise UserError(f"{trained.path}: a code of n = 1 has no second principal component: use --task traverse")
    dimensions = args.d or min(COMPONENTS, latent_dim)
    if dimensions < 2:
        raise UserError(f"-d {args.d}: the grid walks along two principal components, give at least 2")
    if dimensions > latent_dim:
        raise UserError(
            f"-d {args.d}: a code of dimension n = {latent_dim} has at most {latent_dim} principal components"
        )
    codes = training_codes(args, trained)
    fitted = latents.fit_pca(codes, dimensions, args.seed)
    deviations = np.sqrt(fitted.explained_variance_)
    positions = np.zeros((args.X, args.Y, dimensions))
    positions[:, :, 0] = np.linspace(-REACH, REACH, args.X)[:, None] * deviations[0]
    positions[:, :, 1] = np.linspace(-REACH, REACH, args.Y)[None, :] * deviations[1]
    grid = torch.from_numpy(fitted.inverse_transform(positions.reshape(-1, dimensions))).float()
    numbers = {
        "fitted_to": len(codes),
        "standard_deviations": deviations.tolist(),
        "explained_variance_ratio": fitted.explained_variance_ratio_.tolist(),
    }
    return (trained.decode(grid), args.Y), numbers


def traverse(args: argparse.Namespace, trained: Trained) -> tuple[Grid, dict]:
    """±2σ around the mean code, a row for each of the -X dimensions with most variance"""
    codes = training_codes(args, trained)
    walked, order = latents.traverse(codes, args.X, args.Y, REACH)
    dimensions = order[: args.X]
    numbers = {
        "fitted_to": len(codes),
        "dimensions": dimensions.tolist(),
        "standard_deviations": codes.double().std(dim=0)[dimensions].tolist(),
    }
    return (trained.decode(walked), args.Y), numbers


def prior(args: argparse.Namespace, trained: Trained) -> tuple[Grid, dict]:
    """samples of the model's own prior"""
    return (trained.decode(trained.sample("prior", args.X * args.Y, args.seed)), args.Y), {"seed": args.seed}


def conditional(args: argparse.Namespace, trained: Trained) -> tuple[Grid, dict]:
    """a row for each class of infocat-vae or catvae, whatever -X is, sampled from the class's prior"""
    classes = torch.arange(trained.model.num_classes).repeat_interleave(args.Y)
    drawn = trained.model.sample_classes(classes, torch.Generator().manual_seed(args.seed))
    return (trained.decode(drawn), args.Y), {"classes": trained.model.num_classes, "seed": args.seed}


def centroids(args: argparse.Namespace, trained: Trained) -> tuple[Grid, dict]:
    """a row from the mean of each class's prior to the next one's, the last to the first (infocat-vae, catvae)"""
    ends = trained.model.class_centroids().cpu()
    steps = torch.linspace(0, 1, args.Y)[:, None]
    codes = torch.cat([torch.lerp(*pair, steps) for pair in zip(ends, ends.roll(-1, 0), strict=True)])
    return (trained.decode(codes), args.Y), {"classes": len(ends), "steps": steps.flatten().tolist()}


def tsne(args: argparse.Namespace, trained: Trained) -> "tuple[Figure, dict]":
    """a map of test images and as many samples of the Gaussian fitted to the training codes

    The map is made of pixels, not codes: it shows whether the decoded samples lie where real images do.
    """
    from sklearn.manifold import TSNE

    dataset = first_images(trained, "test", args.sample, SHOWN)
    real = dataset[:]
    drawn = trained.decode(trained.sample("mvg", len(real), args.seed))
    pixels = torch.cat([real, drawn]).flatten(1).numpy()
    perplexity = min(30.0, (len(pixels) - 1) / 3)
    embedding = TSNE(perplexity=perplexity, init="pca", random_state=args.seed)
    points = embedding.fit_transform(pixels)
    sampled = np.arange(len(points)) >= len(real)
    labels = None if dataset.labels is None else dataset.labels.numpy()
    numbers = {
        "test_images": len(real),
        "sampled_images": len(drawn),
        "perplexity": perplexity,
        "kl_divergence": float(embedding.kl_divergence_),
        "seed": args.seed,
    }
    return plots.embedding(points, labels, dataset.classes, sampled), numbers


GRIDS = (reconstruction, interpolation, mvg, gmm, pca, traverse, prior, conditional, centroids)
TASKS = {task.__name__: task for task in (*GRIDS, tsne)}


def main() -> None:
    args = parse_arguments()
    trained = evaluation.from_args(args)
    picture, numbers = TASKS[args.task](args, trained)
    path = evaluation.output_path(args, args.task, trained.name)
    if isinstance(picture, tuple):
        plots.save_grid(path, *picture)
    else:
        plots.save_figure(path, picture)
    files.write_json(path.with_suffix(".json"), trained.summary() | {"task": args.task} | numbers)
    print(f"{args.task} of {trained.name} on {args.dataset}: {path}")


if __name__ == "__main__":
    cli.run(main)

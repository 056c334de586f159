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
from experiments.trained import Experiment, open_experiment, output_path
from utils import cli, files, latents, plots
from utils.errors import UserError

TASKS = {
    "reconstruction": "test images, each beside its reconstruction",
    "interpolation": "straight lines between the codes of test images, both ends included",
    "mvg": "samples of a multivariate Gaussian fitted to the training codes",
    "gmm": "samples of a mixture of -d Gaussians fitted to the training codes",
    "pca": "±2σ around the mean code along its first two principal components",
    "traverse": "±2σ around the mean code, a row for each of the -X dimensions with most variance",
    "prior": "samples of the model's own prior",
    "conditional": "a row for each class of infocat-vae or catvae, sampled from the class's prior",
    "centroids": "a row from the mean of each class's prior to the next one's (infocat-vae, catvae)",
    "tsne": "a map of test images and sampled images",
}
FITTED = 10_000  # training codes that a density is fitted to
COMPONENTS = 4  # of pca and gmm
SHOWN = 1_000  # test images that are looked at
REACH = 2.0  # standard deviations that pca and traverse walk to either side


def parse_arguments() -> argparse.Namespace:
    parser = cli.Parser(__doc__.splitlines()[0])
    group = parser.add_argument_group("task")
    what = "; ".join(f"{name}: {title}" for name, title in TASKS.items())
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
        help=f"images to encode (default: {SHOWN} test images, or {FITTED} training images to fit a density to)",
    )
    cli.add_data(parser, data.DATASETS)
    cli.add_linear_layers(cli.add_model(parser))
    cli.add_run(parser, batch_size=500)
    cli.add_results(cli.add_checkpoint(parser))
    return parser.parse_args()


def take(experiment: Experiment, split: str, size: int | None, most: int) -> data.Dataset:
    """The first ``size`` images of a split; unless given, up to ``most``."""
    dataset = experiment.load(split)
    if size is None:
        return dataset.first(min(most, len(dataset)))
    if size > len(dataset):
        raise UserError(f"-N {size}: the {split} set of {experiment.data['name']} has {len(dataset)} images")
    return dataset.first(size)


def need(dataset: data.Dataset, images: int, what: str) -> None:
    """Raises UserError where the grid wants more images than the sample has."""
    if images > len(dataset):
        raise UserError(
            f"{what} needs {images} test images but the sample has {len(dataset)}: raise -N or lower -X or -Y"
        )


def all_images(dataset: data.Dataset, size: int) -> Tensor:
    """The first ``size`` images as floats ``(size, C, H, W)``."""
    return dataset[:size]


def reconstruction(args: argparse.Namespace, experiment: Experiment) -> tuple[Tensor, int, dict]:
    dataset = take(experiment, "test", args.sample, SHOWN)
    number = args.X * args.Y
    need(dataset, number, f"a grid of {args.X} x {args.Y} images")
    codes = latents.encode(experiment.model, dataset, args.batch_size, experiment.device)
    outputs = latents.decode(experiment.model, codes, args.batch_size, experiment.device)
    inputs = all_images(dataset, len(dataset))
    errors = F.mse_loss(outputs, inputs, reduction="none").mean(dim=(1, 2, 3)).double()
    numbers = {
        "images": len(dataset),
        "mean_squared_error": float(errors.mean()),
        "worst_squared_error": float(errors.max()),
    }
    return plots.side_by_side(inputs[:number], outputs[:number]), 2 * args.Y, numbers


def interpolation(args: argparse.Namespace, experiment: Experiment) -> tuple[Tensor, int, dict]:
    if args.Y < 2:
        raise UserError("-Y 1: an interpolation needs at least 2 columns, one for each end")
    dataset = take(experiment, "test", args.sample, SHOWN)
    need(dataset, 2 * args.X, f"interpolating in {args.X} rows")
    ends = latents.encode(experiment.model, dataset.first(2 * args.X), args.batch_size, experiment.device)
    steps = torch.linspace(0, 1, args.Y)
    codes = torch.stack([torch.lerp(*ends[2 * row : 2 * row + 2], step) for row in range(args.X) for step in steps])
    numbers = {"pairs": [[2 * row, 2 * row + 1] for row in range(args.X)], "steps": steps.tolist()}
    return decoded(args, experiment, codes), args.Y, numbers


def mvg(args: argparse.Namespace, experiment: Experiment) -> tuple[Tensor, int, dict]:
    codes = training_codes(args, experiment)
    drawn = latents.sample_gaussian(codes, args.X * args.Y, args.seed)
    return decoded(args, experiment, drawn), args.Y, {"fitted_to": len(codes), "seed": args.seed}


def gmm(args: argparse.Namespace, experiment: Experiment) -> tuple[Tensor, int, dict]:
    codes = training_codes(args, experiment)
    components = args.d or COMPONENTS
    mixture = latents.fit_mixture(codes, components, args.seed)
    drawn = torch.from_numpy(mixture.sample(args.X * args.Y)[0]).float()
    # scikit-learn returns the draws component by component: shuffled, the grid does not sort them.
    drawn = drawn[torch.randperm(len(drawn), generator=torch.Generator().manual_seed(args.seed))]
    numbers = {
        "fitted_to": len(codes),
        "components": components,
        "weights": mixture.weights_.tolist(),
        "mean_log_likelihood": float(mixture.score(codes.double().numpy())),
        "seed": args.seed,
    }
    return decoded(args, experiment, drawn), args.Y, numbers


def pca(args: argparse.Namespace, experiment: Experiment) -> tuple[Tensor, int, dict]:
    latent_dim = experiment.model.latent_dim
    if latent_dim < 2:
        raise UserError(f"{experiment.path}: a code of n = 1 has no second principal component: use --task traverse")
    dimensions = args.d or min(COMPONENTS, latent_dim)
    if dimensions < 2:
        raise UserError(f"-d {args.d}: the grid walks along two principal components, give at least 2")
    if dimensions > latent_dim:
        raise UserError(
            f"-d {args.d}: a code of dimension n = {latent_dim} has at most {latent_dim} principal components"
        )
    codes = training_codes(args, experiment)
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
    return decoded(args, experiment, grid), args.Y, numbers


def traverse(args: argparse.Namespace, experiment: Experiment) -> tuple[Tensor, int, dict]:
    codes = training_codes(args, experiment)
    walked, order = latents.traverse(codes, args.X, args.Y, REACH)
    dimensions = order[: args.X]
    numbers = {
        "fitted_to": len(codes),
        "dimensions": dimensions.tolist(),
        "standard_deviations": codes.double().std(dim=0)[dimensions].tolist(),
    }
    return decoded(args, experiment, walked), args.Y, numbers


def prior(args: argparse.Namespace, experiment: Experiment) -> tuple[Tensor, int, dict]:
    drawn = experiment.model.sample_prior(args.X * args.Y, torch.Generator().manual_seed(args.seed))
    return decoded(args, experiment, drawn), args.Y, {"seed": args.seed}


def conditional(args: argparse.Namespace, experiment: Experiment) -> tuple[Tensor, int, dict]:
    """A row per class, whatever -X says."""
    classes = torch.arange(experiment.model.num_classes).repeat_interleave(args.Y)
    drawn = experiment.model.sample_classes(classes, torch.Generator().manual_seed(args.seed))
    return decoded(args, experiment, drawn), args.Y, {"classes": experiment.model.num_classes, "seed": args.seed}


def centroids(args: argparse.Namespace, experiment: Experiment) -> tuple[Tensor, int, dict]:
    """A row per class, whatever -X says; the last class's leads back to the first."""
    ends = experiment.model.class_centroids().cpu()
    steps = torch.linspace(0, 1, args.Y)[:, None]
    codes = torch.cat([torch.lerp(*pair, steps) for pair in zip(ends, ends.roll(-1, 0), strict=True)])
    return decoded(args, experiment, codes), args.Y, {"classes": len(ends), "steps": steps.flatten().tolist()}


def tsne(args: argparse.Namespace, experiment: Experiment) -> tuple[object, dict]:
    """Test images and as many samples of the Gaussian fitted to the codes, as pixels, in one two-dimensional map.

    The map is made of images, not codes: it shows whether the decoded samples lie where real images do.
    """
    dataset = take(experiment, "test", args.sample, SHOWN)
    real = all_images(dataset, len(dataset))
    train_set = take(experiment, "train", None, FITTED)
    if len(train_set) < 2:
        raise UserError(f"{len(train_set)} training image: a distribution of codes needs at least 2")
    codes = latents.encode(experiment.model, train_set, args.batch_size, experiment.device)
    drawn = decoded(args, experiment, latents.sample_gaussian(codes, len(real), args.seed))
    pixels = torch.cat([real, drawn]).flatten(1).numpy()
    perplexity = min(30.0, (len(pixels) - 1) / 3)
    from sklearn.manifold import TSNE

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


def training_codes(args: argparse.Namespace, experiment: Experiment) -> Tensor:
    """Codes of training images: what a density or principal components are fitted to."""
    dataset = take(experiment, "train", args.sample, FITTED)
    if len(dataset) < 2:
        raise UserError(f"-N {len(dataset)}: a distribution of codes needs at least 2 images")
    return latents.encode(experiment.model, dataset, args.batch_size, experiment.device)


def decoded(args: argparse.Namespace, experiment: Experiment, codes: Tensor) -> Tensor:
    return latents.decode(experiment.model, codes, args.batch_size, experiment.device)


def main() -> None:
    args = parse_arguments()
    experiment = open_experiment(args)
    path = output_path(args, args.task, experiment.name)
    if args.task == "tsne":
        figure, numbers = tsne(args, experiment)
        plots.save_figure(path, figure)
    else:
        grids = (reconstruction, interpolation, mvg, gmm, pca, traverse, prior, conditional, centroids)
        task = {grid.__name__: grid for grid in grids}[args.task]
        images, columns, numbers = task(args, experiment)
        plots.save_grid(path, images, columns)
    files.write_json(path.with_suffix(".json"), experiment.summary() | {"task": args.task} | numbers)
    print(f"{args.task} of {experiment.name} on {args.dataset}: {path}")


if __name__ == "__main__":
    cli.run(main)

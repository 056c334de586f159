"""The tasks of ``generation.py``: each makes a grid of images, or a figure, of one model, and the numbers beside it."""

import argparse
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import data
from experiments.trained import Trained
from utils import latents, plots
from utils.errors import UserError
from utils.grids import Grid, sigmas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPONENTS = 4  # of pca and gmm
SHOWN = 1_000  # test images that are looked at
REACH = 2.0  # standard deviations that pca and traverse walk to either side


def first_images(trained: Trained, split: str, size: int | None, needed: int = 0, what: str = "") -> data.Dataset:
    """The first ``size`` images of a split, 1,000 unless given. Raises UserError for fewer than the grid needs."""
    whole = trained.dataset(split)
    if size is not None and size > len(whole):
        raise UserError(f"-N {size}: the {split} set of {trained.config.dataset} has {len(whole)}")
    dataset = whole.first(size or SHOWN)
    if needed > len(dataset):
        found = f"{needed} test images but the sample has {len(dataset)}"
        raise UserError(f"{what} needs {found}: {'raise -N or ' * (len(dataset) < len(whole))}lower -X or -Y")
    return dataset


def fitted_codes(args: argparse.Namespace, trained: Trained) -> Tensor:
    """Codes of the images of ``--fit-to``, to which a density or principal components are fitted."""
    if args.sample is None and args.fit_to == "train":
        return trained.training_codes()
    whole = len(trained.dataset(args.fit_to))
    if (size := args.sample or whole) < 2:
        raise UserError(f"-N {size}: a distribution of codes needs 2 images; the {args.fit_to} set has {whole}")
    return trained.codes_once(args.fit_to, len(first_images(trained, args.fit_to, size)))


def reconstruction(args: argparse.Namespace, trained: Trained) -> "tuple[Grid | Figure, dict]":
    """test images, each beside its reconstruction; of rows of a file the error of each column"""
    if trained.config.file:
        return errors_by_column(args, trained)
    shown = args.X * args.Y
    dataset = first_images(trained, "test", args.sample, shown, f"a grid of {args.X} x {args.Y} images")
    inputs, outputs = dataset[:], trained.decode(trained.codes_once("test", len(dataset)))
    errors = F.mse_loss(outputs, inputs, reduction="none").mean(dim=(1, 2, 3)).double()
    numbers = {"mean_squared_error": float(errors.mean()), "worst_squared_error": float(errors.max())}
    note = f"mean squared error {numbers['mean_squared_error']:.4g}"
    both = plots.side_by_side(inputs[:shown], outputs[:shown])
    grid = Grid(both, 2 * args.Y, f"{len(dataset):,} test images", note, ("input", "output"), groups=(2,))
    return grid, {"images": len(dataset)} | numbers


def errors_by_column(args: argparse.Namespace, trained: Trained) -> "tuple[Figure, dict]":
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
    numbers: dict = {"rows": len(dataset), "mean_squared_error": float(mse.mean())}
    numbers |= {"r2": float(1 - mse.sum() / variance.sum()) if variance.any() else None, "columns": rows}
    return plots.bars(names, mse, "column", "mean squared error, scaled"), numbers


def interpolation(args: argparse.Namespace, trained: Trained) -> tuple[Grid, dict]:
    """straight lines between the codes of test images, both ends included"""
    if args.Y < 2:
        raise UserError("-Y 1: an interpolation needs at least 2 columns, one for each end")
    dataset = first_images(trained, "test", args.sample, 2 * args.X, f"interpolating in {args.X} rows")
    ends = trained.codes(dataset.first(2 * args.X))
    steps = torch.linspace(0, 1, args.Y)
    codes = torch.lerp(ends[0::2, None], ends[1::2, None], steps[:, None]).flatten(0, 1)
    numbers = {"pairs": [[2 * row, 2 * row + 1] for row in range(args.X)], "steps": steps.tolist()}
    images, what = trained.decode(codes), "straight lines between the codes of test images"
    if args.bare or trained.config.file:
        return Grid(images, args.Y, what), numbers
    inputs, lines = dataset[: 2 * args.X].unflatten(0, (args.X, 2)), images.unflatten(0, (args.X, args.Y))
    images = torch.cat([inputs[:, :1], lines, inputs[:, 1:]], dim=1).flatten(0, 1)
    top = ("input", *(f"{step:.2f}" for step in steps.tolist()), "input")
    return Grid(images, args.Y + 2, what, "", top, groups=(1, args.Y, 1)), numbers


def mvg(args: argparse.Namespace, trained: Trained) -> tuple[Grid, dict]:
    """samples of a multivariate Gaussian fitted to the codes"""
    codes = fitted_codes(args, trained)
    drawn = latents.sample_gaussian(codes, args.X * args.Y, args.seed)
    grid = Grid(trained.decode(drawn), args.Y, f"samples of a Gaussian fitted to {len(codes):,} {args.fit_to} codes")
    return grid, {"fitted_to": len(codes), "seed": args.seed}


def gmm(args: argparse.Namespace, trained: Trained) -> tuple[Grid, dict]:
    """samples of a mixture of -d Gaussians fitted to the codes"""
    codes = fitted_codes(args, trained)
    components = args.d or COMPONENTS
    mixture = latents.fit_mixture(codes, components, args.seed)
    drawn = latents.sample_mixture(mixture, args.X * args.Y, args.seed)
    numbers = {"fitted_to": len(codes), "components": components, "weights": mixture.weights_.tolist()}
    numbers |= {"mean_log_likelihood": float(mixture.score(codes.double().numpy())), "seed": args.seed}
    what = f"samples of {components} Gaussians fitted to {len(codes):,} {args.fit_to} codes"
    return Grid(trained.decode(drawn), args.Y, what), numbers


def pca(args: argparse.Namespace, trained: Trained) -> tuple[Grid, dict]:
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
    fitted_to = len(codes)
    codes = torch.from_numpy(fitted.inverse_transform(positions.reshape(-1, dimensions))).float()
    numbers = {"fitted_to": fitted_to, "standard_deviations": deviations.tolist()}
    shares = numbers["explained_variance_ratio"] = fitted.explained_variance_ratio_.tolist()
    down, across = (f"component {k + 1} ({shares[k]:.0%})" for k in (0, 1))
    grid = Grid(trained.decode(codes), args.Y, f"PCA of {fitted_to:,} codes (shares of the variance)", "",
                sigmas(args.Y, REACH), sigmas(args.X, REACH), across=across, down=down)  # fmt: skip
    return grid, numbers


def traverse(args: argparse.Namespace, trained: Trained) -> tuple[Grid, dict]:
    """±2σ around the mean code, a row for each of the -X dimensions with most variance"""
    codes = fitted_codes(args, trained)
    walked, order = latents.traverse(codes, args.X, args.Y, REACH)
    shown = order[: args.X]
    deviations = codes.double().std(dim=0)[shown].tolist()
    numbers = {"fitted_to": len(codes), "dimensions": shown.tolist(), "standard_deviations": deviations}
    left = [f"z{dimension}, σ = {sigma:.2g}" for dimension, sigma in zip(shown.tolist(), deviations, strict=True)]
    what = f"dimensions with most variance over {len(codes):,} codes"
    return Grid(trained.decode(walked), args.Y, what, "", sigmas(args.Y, REACH), left), numbers


def prior(args: argparse.Namespace, trained: Trained) -> tuple[Grid, dict]:
    """samples of the model's own prior"""
    drawn = trained.sample("prior", args.X * args.Y, args.seed)
    return Grid(trained.decode(drawn), args.Y, "samples of the model's own prior"), {"seed": args.seed}


def conditional(args: argparse.Namespace, trained: Trained) -> tuple[Grid, dict]:
    """a row for each class of infocat-vae or catvae, whatever -X is, sampled from the class's prior"""
    classes = torch.arange(trained.model.num_classes).repeat_interleave(args.Y)
    drawn = trained.model.sample_classes(classes, torch.Generator().manual_seed(args.seed))
    left = [f"class {k}" for k in range(trained.model.num_classes)]
    grid = Grid(trained.decode(drawn), args.Y, "samples of each class's prior", left=left)
    return grid, {"classes": trained.model.num_classes, "seed": args.seed}


def centroids(args: argparse.Namespace, trained: Trained) -> tuple[Grid, dict]:
    """a row from the mean of each class's prior to the next one's, the last to the first (infocat-vae, catvae)"""
    ends = trained.model.class_centroids().cpu()
    steps = torch.linspace(0, 1, args.Y)
    codes = torch.lerp(ends[:, None], ends.roll(-1, 0)[:, None], steps[:, None]).flatten(0, 1)
    left, top = [f"{k} to {(k + 1) % len(ends)}" for k in range(len(ends))], [f"{t:.2f}" for t in steps.tolist()]
    grid = Grid(trained.decode(codes), args.Y, "between the means of the classes' priors", "", top, left)
    return grid, {"classes": len(ends), "steps": steps.tolist()}


def tsne(args: argparse.Namespace, trained: Trained) -> "tuple[Figure, dict]":
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
    numbers: dict = {"test_images": len(dataset), "sampled_images": len(drawn), "perplexity": perplexity}
    numbers |= {"kl_divergence": float(embedding.kl_divergence_), "seed": args.seed, "fit_to": "train"}
    figure = plots.embedding(points, labels, dataset.classes, np.arange(len(points)) >= len(dataset))
    figure.suptitle(plots.plain(f"{trained.name}: t-SNE of pixels; samples of a Gaussian fitted to training codes"))
    return figure, numbers


GRIDS = (reconstruction, interpolation, mvg, gmm, pca, traverse, prior, conditional, centroids)

#!/usr/bin/env python
"""Is latent space a scaled copy of data space? Inner products, variances and the decoder's metric (RaDOGAGA, 5.1).

python isometry.py --dataset mnist --model-name ae vae radogaga     one table, one figure
python isometry.py --dataset celeba
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

import data
from experiments import evaluation
from experiments.columns import Column, column_of
from experiments.trained import Trained
from models.vae import GaussianPosterior
from utils import cli, files, flags, isometry, latents, plots
from utils.errors import UserError
from utils.grids import Grid, sigmas

TRAVERSED = 9  # dimensions with most variance, one row of the traverse each, and steps in a row
PAIRS = {
    "released": "as RaDOGAGA's release draws them, at the first training images",
    "uniform": "no direction preferred, at test images",
}


@dataclass
class Measured:
    """A checkpoint's row of numbers, and what its figures show."""

    row: dict
    # "latent" and the metrics of ``isometry.inner_products``, ``(P,)``; "variance" ``(n,)`` and "metric:..."
    # ``(M, n)``, whose dimensions are sorted by variance, largest first.
    arrays: dict[str, np.ndarray]
    traverse: Grid


def decoder(trained: Trained) -> Callable[[torch.Tensor], torch.Tensor]:
    """The decoder; of a file as vectors: SSIM is of images."""
    decode = trained.model.decode
    return (lambda z: decode(z).flatten(1)) if trained.config.file else decode


@torch.no_grad()
def posterior_scale(trained: Trained, dataset: data.Dataset) -> torch.Tensor | None:
    """``(n,)``: the mean over images of the posterior's standard deviation; None without a Gaussian posterior."""
    if not isinstance(trained.model, GaussianPosterior):
        return None
    batches = dataset.batches(trained.batch_size, trained.device)
    return torch.cat([torch.exp(0.5 * trained.model.posterior(x)[1]) for x in batches]).mean(dim=0).cpu()


def inner_products(trained: Trained, kind: str, args: argparse.Namespace) -> tuple[dict[str, dict], torch.Tensor]:
    """Those of ``--num-pairs`` pairs of a kind and, with a Gaussian posterior, of the rescaled code; the codes."""
    generator = torch.Generator().manual_seed(args.seed)
    if kind == "released":
        images = trained.dataset("train").first(args.num_pairs)
        codes, draw = trained.encode(images), isometry.released_pairs
    else:
        images = trained.dataset("test", args.test_size)
        codes, draw = trained.encode(images), isometry.uniform_pairs
        codes = codes[torch.randperm(len(codes), generator=generator)[: args.num_pairs]]
    if args.delta < (least := isometry.shortest_step(codes)):
        why = f"such a step from the codes of {trained.name} is lost in the rounding of float32"
        raise UserError(f"--delta {args.delta:g}: {why}: expected {1.06 * least:.1e} or more")
    codes = codes.to(trained.device)
    pairs = draw(*codes.shape, generator)
    found = {kind: isometry.inner_products(decoder(trained), codes, pairs, args.delta, args.batch_size)}
    scale = posterior_scale(trained, images)
    if scale is not None:
        rescaled = isometry.inner_products(decoder(trained), codes, pairs, args.delta, args.batch_size, scale)
        found[f"{kind}_rescaled"] = rescaled
    return found, codes


def measure(trained: Trained, args: argparse.Namespace) -> Measured:
    dataset = evaluation.test_set(trained, args.test_size)
    products, codes = {}, {}
    for kind in PAIRS:
        found, codes[kind] = inner_products(trained, kind, args)
        products |= found
    correlation = {
        kind: {key: isometry.pearson(found["latent"], values) for key, values in found.items() if key != "latent"}
        for kind, found in products.items()
    }
    numbers = {"images": len(dataset), "delta": args.delta, "seed": args.seed, "pairs": args.pairs}
    numbers |= {f"num_pairs_{kind}": len(values) for kind, values in codes.items()}
    numbers["mse"] = evaluation.reconstruction_error(trained, dataset, trained.codes(dataset))
    numbers["cautions"] = evaluation.cautions(trained)
    numbers["isometry"] = correlation[args.pairs]["mse-difference"]
    for kind, values in correlation.items():
        numbers |= {
            f"isometry_{kind}": values["mse-difference"],
            f"isometry_ssim_{kind}": values.get("ssim-difference"),
        }

    spread = trained.training_codes()
    walked, order = latents.traverse(spread, TRAVERSED, TRAVERSED)
    arrays = products[args.pairs] | {"variance": spread.double().var(dim=0)[order].numpy()}
    chosen = codes["uniform"][: args.metric_codes]
    along = isometry.metric_along_dimensions(decoder(trained), chosen, args.delta, args.batch_size)
    arrays |= {f"metric:{key}": values[:, order.numpy()] for key, values in along.items()}
    exact = arrays["metric:mse-jacobian"]
    numbers |= {
        "pearson": correlation,
        # 0 where a step has the same effect along every dimension and at every code.
        "metric_variation": float(exact.std() / exact.mean()) if exact.mean() > 0 else None,
        "variance": arrays["variance"].tolist(),
        "dimensions": order.tolist(),
        "metric": {
            key: {"mean": values.mean(axis=0)[order].tolist(), "deviation": values.std(axis=0)[order].tolist()}
            for key, values in along.items()
        },
    }
    shown = zip(order.tolist(), np.sqrt(arrays["variance"][:TRAVERSED]).tolist(), strict=False)
    words = {"top": sigmas(TRAVERSED, 2.0), "left": [f"z{dimension}, σ = {sigma:.2g}" for dimension, sigma in shown]}
    grid = Grid(trained.decode(walked), TRAVERSED, "dimensions with most variance", **words)
    return Measured(trained.summary() | numbers, arrays, grid)


def draw(models: list[Measured]) -> "plots.Figure":
    """A line for each model: inner products under each metric, the variances of the code, the decoder's metric."""
    titles = {"mse": "in data space (mse)", "ssim": "in data space (1 − SSIM)"}
    metrics = [metric for metric in titles if f"{metric}-difference" in models[0].arrays]
    columns = len(metrics) + 2
    figure, axes = plots.subplots(len(models), columns, size=(2.4 * columns, 2.4 * len(models) + 0.3))
    for line, measured in zip(axes, models, strict=True):
        row, arrays = measured.row, measured.arrays
        for axis, metric in zip(line, metrics, strict=False):
            axis.plot(arrays["latent"], arrays[f"{metric}-difference"], ".", markersize=2, rasterized=True)
            r = row["pearson"][row["pairs"]][f"{metric}-difference"]
            words = "no r" if r is None else f"r = {r:.4f}"
            axis.set_title(f"{plots.plain(row['model_name'])}\n{words}", fontsize=10, loc="right")
            axis.set_xlabel("in latent space", loc="left")
            axis.set_ylabel(titles[metric])
            axis.ticklabel_format(style="sci", scilimits=(0, 0))
            axis.locator_params(axis="x", nbins=3)
        dimensions = np.arange(1, len(arrays["variance"]) + 1)
        line[-2].bar(dimensions, arrays["variance"], width=1.0)
        line[-2].set(xlabel="dimension, by variance", ylabel="variance of the code")
        mean, spread = arrays["metric:mse-jacobian"].mean(axis=0), arrays["metric:mse-jacobian"].std(axis=0)
        line[-1].plot(dimensions, mean, label="Jacobian, mean")
        line[-1].fill_between(dimensions, mean - spread, mean + spread, alpha=0.3, label="± deviation over codes")
        difference = arrays["metric:mse-difference"].mean(axis=0)
        line[-1].plot(dimensions, difference, "k--", linewidth=0.8, label="finite difference")
        line[-1].set_ylim(bottom=0)
        line[-1].set(xlabel="dimension, by variance", ylabel="length² of a unit step (mse)")
        for axis in line[-2:]:
            axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes.flat:
        axis.tick_params(labelsize=8)
        for part in (axis.xaxis, axis.yaxis):
            part.label.set_fontsize(9)
            part.get_offset_text().set_fontsize(8)
    for axis in axes[:-1].flat:
        axis.set_xlabel("")
        axis.xaxis.get_offset_text().set_visible(False)  # the last line has it; here the next line's title is
    figure.legend(*axes[0][-1].get_legend_handles_labels(), fontsize=9, loc="outside lower right", ncols=3)
    return figure


def table(rows: list[dict]) -> str:
    """The rows as a Markdown table: Pearson r by finite differences, for each kind of pairs."""
    columns = [f"{name}_{kind}" for name in ("isometry", "isometry_ssim") for kind in PAIRS]
    columns[2:2] = [f"isometry_{kind}_rescaled" for kind in PAIRS]
    columns = [*columns, "metric_variation", "mse"]
    lines = []
    for row in rows:
        numbers = [column_of(name).text(row.get(name)) for name in columns]
        lines.append([row["model_name"], str(len(row["variance"])), *numbers])
    return files.markdown_table(["model", "n", *(column_of(name).title for name in columns)], lines)


def main() -> None:
    parser = cli.Parser(__doc__.splitlines()[0])
    add = parser.add_argument_group("isometry").add_argument
    what = "of the figure and the last line; the table has both. " + cli.titles(PAIRS)
    add("--pairs", choices=list(PAIRS), default="released", help=what)
    text = "pairs of steps of each kind, each at its own code; published: 1620"
    add("--num-pairs", type=cli.positive, default=1620, metavar="P", help=text)
    add("--delta", type=cli.positive_float, default=0.01, help="δ, length of a step, in units of the code")
    add("--metric-codes", type=cli.positive, default=16, metavar="M", help="codes at which all dimensions are measured")
    flags.add_figures(evaluation.add_flags(parser, batch_size=100, several=True), grids=True)
    args = parser.parse_args()

    models = []
    for trained in evaluation.all_from_args(args):
        measured = measure(trained, args)
        models.append(measured)
        path = evaluation.output_path(args, "isometry", f"{trained.name}-traverse")
        path = evaluation.save_grids(args, path, [trained], [measured.traverse])
        print(f"traverse of the {len(measured.traverse.left)} dimensions with most variance: {path}")
    rows = [measured.row for measured in models]
    path = evaluation.save(args, "isometry", [row["model_name"] for row in rows], draw(models), rows)
    files.write_text(path.with_suffix(".md"), table(rows))
    print(f"figure: {path}")
    print(table(rows), end="")
    found = ", ".join(
        f"{row['model_name']} {Column('', '.4f').text(row['isometry'])}{evaluation.listed(row['cautions'])}"
        for row in rows
    )
    about = f"{args.dataset}, mse, {args.pairs} pairs, δ = {args.delta:g}"
    print(f"Pearson r of inner products in latent and data space ({about}): {found}")


if __name__ == "__main__":
    cli.run(main)

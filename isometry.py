#!/usr/bin/env python
"""Is latent space a scaled copy of data space? Inner products, variances and the decoder's metric (RaDOGAGA, 5.1).

python isometry.py --dataset mnist --model-name ae vae radogaga     one table, one figure
python isometry.py --dataset celeba
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F

import data
from experiments import evaluation
from experiments.columns import Column
from experiments.trained import Trained
from utils import cli, files, isometry, latents, plots
from utils.errors import UserError

TRAVERSED = 9  # dimensions with most variance, one row of the traverse each, and steps in a row


@torch.no_grad()
def reconstruction_error(trained: Trained, dataset: data.Dataset, codes: torch.Tensor) -> float:
    """Mean squared error over the images ``dataset``, whose codes are ``codes`` ``(N, n)``."""
    decode = trained.model.decode
    batches = zip(dataset.batches(trained.batch_size, trained.device), codes.split(trained.batch_size), strict=True)
    errors = [F.mse_loss(decode(z.to(x)), x, reduction="none").flatten(1).mean(dim=1) for x, z in batches]
    return float(torch.cat(errors).double().mean())


def measure(trained: Trained, args: argparse.Namespace) -> tuple[dict, dict[str, np.ndarray], torch.Tensor]:
    """A checkpoint's row of numbers, the arrays behind the figure, and the images of the traverse.

    The arrays are those of ``isometry.inner_products``, and ``variance`` ``(n,)`` and ``metric:...`` ``(M, n)``, whose
    dimensions are sorted by variance, largest first.
    """
    dataset = trained.dataset("test", args.test_size)
    if len(dataset) < 2:
        advice = "raise --test-size or give more data"
        raise UserError(f"{len(dataset)} test image: a correlation needs at least 2; {advice}")
    codes = trained.codes(dataset)
    generator = torch.Generator().manual_seed(args.seed)
    chosen = codes[torch.randperm(len(codes), generator=generator)[: args.pairs]].to(trained.device)
    decode = trained.model.decode
    arrays = isometry.inner_products(decode, chosen, args.delta, generator, args.batch_size)
    correlation = {key: isometry.pearson(arrays["latent"], values) for key, values in arrays.items() if key != "latent"}

    walked, order = latents.traverse(codes, TRAVERSED, TRAVERSED)
    arrays["variance"] = codes.double().var(dim=0)[order].numpy()
    along = isometry.metric_along_dimensions(decode, chosen[: args.metric_codes], args.delta, args.batch_size)
    arrays |= {f"metric:{key}": values[:, order.numpy()] for key, values in along.items()}

    exact = arrays["metric:mse-jacobian"]
    numbers = {"images": len(codes), "pairs": len(chosen), "delta": args.delta, "seed": args.seed}
    numbers |= {
        "mse": reconstruction_error(trained, dataset, codes),
        "isometry": correlation["mse-difference"],
        "isometry_ssim": correlation.get("ssim-difference"),
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
    return trained.summary() | numbers, arrays, trained.decode(walked)


def draw(rows: list[dict], panels: list[dict[str, np.ndarray]]) -> "plots.Figure":
    """A line for each model: inner products under each metric, the variances of the code, the decoder's metric."""
    titles = {"mse": "in data space, mse", "ssim": "in data space, 1 − SSIM"}
    metrics = [metric for metric in titles if f"{metric}-difference" in panels[0]]
    columns = len(metrics) + 2
    figure, axes = plots.subplots(len(panels), columns, size=(3.2 * columns, 2.8 * len(panels)))
    for line, row, arrays in zip(axes, rows, panels, strict=True):
        for axis, metric in zip(line, metrics, strict=False):
            axis.plot(arrays["latent"], arrays[f"{metric}-difference"], ".", markersize=2, rasterized=True)
            r = row["pearson"][f"{metric}-difference"]
            axis.set_title(f"{plots.plain(row['model_name'])}: {'no r' if r is None else f'r = {r:.4f}'}", fontsize=9)
            axis.set(xlabel="inner product in latent space", ylabel=titles[metric])
            axis.ticklabel_format(style="sci", scilimits=(0, 0))
            axis.locator_params(axis="x", nbins=5)
        dimensions = np.arange(1, len(arrays["variance"]) + 1)
        line[-2].bar(dimensions, arrays["variance"], width=1.0)
        line[-2].set(xlabel="dimension, by variance", ylabel="variance of the code")
        mean, spread = arrays["metric:mse-jacobian"].mean(axis=0), arrays["metric:mse-jacobian"].std(axis=0)
        line[-1].plot(dimensions, mean, label="Jacobian, mean")
        line[-1].fill_between(dimensions, mean - spread, mean + spread, alpha=0.3, label="± deviation over codes")
        difference = arrays["metric:mse-difference"].mean(axis=0)
        line[-1].plot(dimensions, difference, "--", linewidth=0.8, label="finite difference")
        line[-1].set_ylim(bottom=0)
        line[-1].set(xlabel="dimension, by variance", ylabel="squared length of a unit step, mse")
    for axis in axes.flat:
        axis.tick_params(labelsize=7)
        for part in (axis.xaxis, axis.yaxis):
            part.label.set_fontsize(8)
            part.get_offset_text().set_fontsize(7)
    axes[0][-1].legend(fontsize=7)
    return figure


def table(rows: list[dict]) -> str:
    """The rows as a Markdown table: Pearson r by finite difference (as published) and by exact Jacobian products."""
    metrics = list(rows[0]["pearson"])
    header = ["model", "n", *(f"r, {key.replace('-', ', ')}" for key in metrics), "variation of the metric"]
    lines = []
    for row in rows:
        numbers = [Column("").text(value) for value in (*row["pearson"].values(), row["metric_variation"])]
        lines.append([row["model_name"], str(len(row["variance"])), *numbers, f"{row['mse']:.5f}"])
    return files.markdown_table([*header, "reconstruction, mse"], lines)


def main() -> None:
    parser = cli.Parser(__doc__.splitlines()[0])
    add = parser.add_argument_group("isometry").add_argument
    add("--pairs", type=cli.positive, default=1000, metavar="P", help="pairs of steps, each at its own code")
    add("--delta", type=cli.positive_float, default=0.01, help="δ, length of a step, in units of the code")
    add("--metric-codes", type=cli.positive, default=16, metavar="M", help="codes at which all dimensions are measured")
    evaluation.add_flags(parser, batch_size=100, several=True)
    args = parser.parse_args()

    rows, panels = [], []
    for trained in evaluation.all_from_args(args):
        row, arrays, images = measure(trained, args)
        rows, panels = [*rows, row], [*panels, arrays]
        path = evaluation.output_path(args, "isometry", f"{trained.name}-traverse")
        plots.save_grid(path, images, TRAVERSED)
        print(f"traverse of the {len(images) // TRAVERSED} dimensions with most variance: {path}")
    path = evaluation.save(args, "isometry", [row["model_name"] for row in rows], draw(rows, panels), rows)
    files.write_text(path.with_suffix(".md"), table(rows))
    print(f"figure: {path}")
    print(table(rows), end="")
    found = ", ".join(f"{row['model_name']} {Column('', '.4f').text(row['isometry'])}" for row in rows)
    print(f"Pearson r of inner products in latent and data space ({args.dataset}, mse, δ = {args.delta:g}): {found}")


if __name__ == "__main__":
    cli.run(main)

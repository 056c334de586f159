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
from experiments.trained import Experiment, joined, open_experiment, output_path
from utils import cli, files, isometry, latents, plots
from utils.errors import UserError

TRAVERSED = 9  # dimensions with most variance, one row of the traverse each, in so many steps


def parse_arguments() -> argparse.Namespace:
    parser = cli.Parser(__doc__.splitlines()[0])
    group = parser.add_argument_group("isometry")
    group.add_argument("--test-size", type=cli.positive, metavar="N", help="test images to encode (default: all)")
    group.add_argument(
        "--pairs", type=cli.positive, default=1000, metavar="P", help="pairs of steps, each at its own code"
    )
    group.add_argument(
        "--delta", type=cli.positive_float, default=0.01, help="δ, length of a step, in units of the code"
    )
    group.add_argument(
        "--metric-codes", type=cli.positive, default=16, metavar="M", help="codes at which every dimension is measured"
    )
    cli.add_data(parser, data.DATASETS)
    cli.add_linear_layers(cli.add_model(parser))
    cli.add_run(parser, batch_size=100)
    cli.add_results(cli.add_checkpoint(parser, several=True))
    return parser.parse_args()


@torch.no_grad()
def reconstruction_error(experiment: Experiment, dataset: data.Dataset, codes: torch.Tensor, batch_size: int) -> float:
    """Mean squared error over the images ``dataset``, whose codes are ``codes`` ``(N, n)``."""
    batches = zip(dataset.batches(batch_size, device=experiment.device), codes.split(batch_size), strict=True)
    errors = [
        F.mse_loss(experiment.model.decode(z.to(experiment.device)), x, reduction="none").flatten(1).mean(dim=1)
        for x, z in batches
    ]
    return float(torch.cat(errors).double().mean())


def measure(experiment: Experiment, args: argparse.Namespace) -> tuple[dict, dict[str, np.ndarray], torch.Tensor]:
    """Everything about one checkpoint.

    Returns:
        its row of numbers; the arrays behind the figure: the ``isometry.inner_products``, ``variance`` ``(n,)`` and,
        for each ``metric:...``, ``(M, n)``, dimensions sorted by variance, largest first; the images of the traverse.
    """
    dataset = experiment.load("test", args.test_size)
    codes = latents.encode(experiment.model, dataset, args.batch_size, experiment.device)
    if len(codes) < 2:
        raise UserError(f"{len(codes)} test image: a correlation needs at least 2; raise --test-size or give more data")
    generator = torch.Generator().manual_seed(args.seed)
    chosen = codes[torch.randperm(len(codes), generator=generator)[: args.pairs]].to(experiment.device)
    decode = experiment.model.decode
    arrays = isometry.inner_products(decode, chosen, args.delta, generator, args.batch_size)
    correlation = {key: isometry.pearson(arrays["latent"], values) for key, values in arrays.items() if key != "latent"}

    walked, order = latents.traverse(codes, TRAVERSED, TRAVERSED)
    arrays["variance"] = codes.double().var(dim=0)[order].numpy()
    along = isometry.metric_along_dimensions(decode, chosen[: args.metric_codes], args.delta, args.batch_size)
    arrays |= {f"metric:{key}": values[:, order.numpy()] for key, values in along.items()}

    images = latents.decode(experiment.model, walked, args.batch_size, experiment.device)
    exact = arrays["metric:mse-jacobian"]
    numbers = {
        "images": len(codes),
        "pairs": len(chosen),
        "delta": args.delta,
        "seed": args.seed,
        "mse": reconstruction_error(experiment, dataset, codes, args.batch_size),
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
    return experiment.summary() | numbers, arrays, images


def table(rows: list[dict]) -> list[str]:
    """The rows as a Markdown table: Pearson r by finite difference (as published) and by exact Jacobian products."""
    metrics = list(rows[0]["pearson"])
    correlations = (f"r, {key.replace('-', ', ')}" for key in metrics)
    titles = ["model", "n", *correlations, "variation of the metric", "reconstruction, mse"]
    lines = [titles, ["---"] * len(titles)]
    for row in rows:
        numbers = [*(row["pearson"][key] for key in metrics), row["metric_variation"]]
        shown = ["–" if value is None else f"{value:.3f}" for value in numbers]
        lines.append([row["model_name"].replace("|", "\\|"), str(len(row["variance"])), *shown, f"{row['mse']:.5f}"])
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def main() -> None:
    args = parse_arguments()
    experiments = [open_experiment(args, name) for name in dict.fromkeys(args.model_name or [None])]
    rows, panels = [], {}
    for experiment in experiments:
        row, panels[experiment.name], images = measure(experiment, args)
        rows.append(row)
        path = output_path(args, "isometry", f"{experiment.name}-traverse")
        plots.save_grid(path, images, TRAVERSED)
        print(f"traverse of the {len(images) // TRAVERSED} dimensions with most variance: {path}")
    path = output_path(args, "isometry", joined([experiment.name for experiment in experiments]))
    plots.save_figure(path, plots.isometry(panels, {row["model_name"]: row["pearson"] for row in rows}))
    lines = table(rows)
    files.write_json(path.with_suffix(".json"), rows)
    with files.replacing(path.with_suffix(".md")) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    print(f"figure: {path}")
    print("\n".join(lines))
    correlations = {row["model_name"]: row["pearson"]["mse-difference"] for row in rows}
    found = ", ".join(f"{name} {'–' if r is None else format(r, '.4f')}" for name, r in correlations.items())
    print(f"Pearson r of inner products in latent and data space ({args.dataset}, mse, δ = {args.delta:g}): {found}")


if __name__ == "__main__":
    cli.run(main)

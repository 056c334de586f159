#!/usr/bin/env python
"""Spectrum and rank of the latent covariance of one or several checkpoints, in one figure.

python singular.py --dataset mnist --model-name ae irmae vae
python singular.py -n 128
"""

import argparse

import data
from experiments.trained import joined, open_experiment, output_path
from utils import cli, files, latents, plots

TRUE_DIMENSIONS = {"shape": 7}  # data sets whose number of factors is known


def parse_arguments() -> argparse.Namespace:
    parser = cli.Parser(__doc__.splitlines()[0])
    group = parser.add_argument_group("spectrum")
    group.add_argument(
        "--threshold",
        type=cli.positive_float,
        default=latents.RANK_THRESHOLD,
        help="the rank counts the singular values above this fraction of the largest",
    )
    group.add_argument("--test-size", type=cli.positive, metavar="N", help="test images to encode (default: all)")
    cli.add_data(parser, data.DATASETS)
    cli.add_linear_layers(cli.add_model(parser))
    cli.add_run(parser, batch_size=500)
    cli.add_results(cli.add_checkpoint(parser, several=True))
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    experiments = [open_experiment(args, name) for name in dict.fromkeys(args.model_name or [None])]
    curves, rows = {}, []
    for experiment in experiments:
        dataset = experiment.load("test", args.test_size)
        codes = latents.encode(experiment.model, dataset, args.batch_size, experiment.device)
        spectrum = latents.spectrum(codes)
        rank = spectrum.rank(args.threshold)
        curves[f"{experiment.name} (rank {rank})"] = spectrum.values
        rows.append(
            experiment.summary()
            | {
                "images": len(dataset),
                "threshold": args.threshold,
                "rank": rank,
                "effective_rank": spectrum.effective_rank(),
                "largest_singular_value": spectrum.largest,
                "spectrum": spectrum.values.tolist(),
            }
        )
    marks = [(TRUE_DIMENSIONS[args.dataset], "7 factors")] if args.dataset in TRUE_DIMENSIONS else []
    path = output_path(args, "singular", joined([experiment.name for experiment in experiments]))
    plots.save_figure(path, plots.spectra(curves, args.threshold, marks))
    files.write_json(path.with_suffix(".json"), rows)
    print(f"singular values: {path}")
    for row in rows:
        print(
            f"{row['model_name']}: rank {row['rank']} of {len(row['spectrum'])}, effective rank "
            f"{row['effective_rank']:.2f} ({row['images']:,} test images of {args.dataset})"
        )


if __name__ == "__main__":
    cli.run(main)

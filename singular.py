#!/usr/bin/env python
"""Spectrum and rank of the latent covariance of one or several checkpoints, in one figure.

python singular.py --dataset mnist --model-name ae irmae vae
python singular.py -n 128
"""

import numpy as np

from experiments import evaluation
from experiments.trained import Trained
from utils import cli, latents, plots

TRUE_DIMENSIONS = {"shape": 7}  # data sets whose number of factors is known


def measure(trained: Trained, size: int | None, threshold: float) -> dict:
    """Rank, effective rank and spectrum; of samples and of means where the code is a distribution."""
    dataset = trained.dataset("test", size)
    chosen = latents.spectrum(trained.codes(dataset))
    row = trained.summary() | {"images": len(dataset), "threshold": threshold, "rank": chosen.rank(threshold)}
    row |= {"effective_rank": chosen.effective_rank(), "largest_singular_value": chosen.largest}
    row["spectrum"] = chosen.values.tolist()
    if trained.is_stochastic(dataset.first(2)):
        for kind, encode in (("sample", trained.sample_codes), ("mean", trained.encode)):
            found = latents.spectrum(encode(dataset))
            row[f"{kind}s"] = {"rank": found.rank(threshold), "effective_rank": found.effective_rank()}
    return row


def report(row: dict) -> str:
    """The printed line of a model."""
    line = f"{row['model_name']}: rank {row['rank']} of {len(row['spectrum'])}"
    line += f", effective rank {row['effective_rank']:.2f}"
    if "samples" in row:
        line += f" of {row['posterior']}s"
        other = "means" if row["posterior"] == "sample" else "samples"
        line += f"; of {other} {row[other]['rank']} and {row[other]['effective_rank']:.2f}"
    return f"{line} ({row['images']:,} test images of {row['dataset']})"


def main() -> None:
    parser = cli.Parser(__doc__.splitlines()[0])
    what = "the rank counts the singular values above this fraction of the largest"
    group = parser.add_argument_group("spectrum")
    group.add_argument("--threshold", type=cli.positive_float, default=latents.RANK_THRESHOLD, help=what)
    evaluation.add_flags(parser, several=True)
    args = parser.parse_args()

    rows = [measure(trained, args.test_size, args.threshold) for trained in evaluation.all_from_args(args)]
    curves = {f"{row['model_name']} (rank {row['rank']})": np.array(row["spectrum"]) for row in rows}
    marks = [(TRUE_DIMENSIONS[args.dataset], "7 factors")] if args.dataset in TRUE_DIMENSIONS else []
    figure = plots.spectra(curves, args.threshold, marks)
    path = evaluation.save(args, "singular", [row["model_name"] for row in rows], figure, rows)
    print(f"singular values: {path}", *map(report, rows), sep="\n")


if __name__ == "__main__":
    cli.run(main)

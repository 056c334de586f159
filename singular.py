#!/usr/bin/env python
"""Spectrum and rank of the latent covariance of one or several checkpoints, in one figure.

python singular.py --dataset mnist --model-name ae irmae vae
python singular.py -n 128
"""

import numpy as np
import torch
from torch import Tensor

import models
from experiments import evaluation
from experiments.trained import Trained
from utils import cli, flags, latents, plots

TRUE_DIMENSIONS = {"shape": 7}  # data sets whose number of factors is known
MIN_PREDICTED, MAX_PREDICTED = 50, 10_000  # images from whose codes the factors are predicted: the first ones


def measure(trained: Trained, size: int | None, threshold: float) -> dict:
    """Rank, effective rank and spectrum; of samples and of means where the code is a distribution."""
    dataset = evaluation.test_set(trained, size)
    codes, config = trained.codes(dataset), trained.config
    chosen = latents.spectrum(codes)
    row = trained.summary() | {"images": len(dataset), "threshold": threshold, "rank": chosen.rank(threshold)}
    row |= {"effective_rank": chosen.effective_rank(), "largest_singular_value": chosen.largest}
    row |= {"cautions": evaluation.cautions(trained, rank=len(codes)), "spectrum": chosen.values.tolist()}
    if models.find(config.model).has_distribution(models.options(config.model) | config.options):
        for kind, encode in (("sample", trained.sample_codes), ("mean", trained.encode)):
            found = latents.spectrum(encode(dataset))
            row[f"{kind}s"] = {"rank": found.rank(threshold), "effective_rank": found.effective_rank()}
    if len(dataset) >= MIN_PREDICTED and (factors := dataset.first(MAX_PREDICTED).factors()):
        row["factors"] = explained(codes[:MAX_PREDICTED], factors, trained.seed)
    return row


def explained(codes: Tensor, factors: dict[str, Tensor], seed: int) -> dict[str, float]:
    """R² of each factor, predicted from the codes of other images; of one with two values also the accuracy."""
    from sklearn.metrics import r2_score

    values = torch.stack(list(factors.values()), dim=1).double().numpy()
    predicted = latents.predict(codes, values, seed)
    found = dict(zip(factors, r2_score(values, predicted, multioutput="raw_values").tolist(), strict=True))
    for name, own, guess in zip(factors, values.T, predicted.T, strict=True):
        if set(own) == {0.0, 1.0}:
            found[f"{name}, accuracy"] = float(((guess > 0.5) == own).mean())
    return found


def report(row: dict) -> str:
    """The printed line of a model."""
    line = f"{row['model_name']}: rank {row['rank']} of {len(row['spectrum'])}"
    line += f", effective rank {row['effective_rank']:.2f}"
    if "samples" in row:
        line += f" of {row['posterior']}s"
        other = "means" if row["posterior"] == "sample" else "samples"
        line += f"; of {other} {row[other]['rank']} and {row[other]['effective_rank']:.2f}"
    line += f" ({row['images']:,} test {'rows' if 'scale' in row else 'images'} of {row['dataset']})"
    line += evaluation.listed(row["cautions"])
    if "factors" in row:
        line += "\n  R² of the factors from the codes: " + ", ".join(f"{k} {v:.2f}" for k, v in row["factors"].items())
    return line


def main() -> None:
    parser = cli.Parser(__doc__.splitlines()[0])
    what = "the rank counts the singular values above this fraction of the largest"
    group = parser.add_argument_group("spectrum")
    group.add_argument("--threshold", type=cli.positive_float, default=latents.RANK_THRESHOLD, help=what)
    what = "write the codes in the basis of their singular vectors, cut at the rank, and labels as .npy"
    group.add_argument("--save-codes", action="store_true", help=what)
    flags.add_figures(evaluation.add_flags(parser, several=True))
    args = parser.parse_args()

    compared = evaluation.all_from_args(args)
    rows = [measure(trained, args.test_size, args.threshold) for trained in compared]
    curves = {f"{row['model_name']} (rank {row['rank']})": np.array(row["spectrum"]) for row in rows}
    marks = [(TRUE_DIMENSIONS[args.dataset], "7 factors")] if args.dataset in TRUE_DIMENSIONS else []
    figure = plots.spectra(curves, args.threshold, marks)
    path = evaluation.save(args, "singular", [row["model_name"] for row in rows], figure, rows)
    print(f"singular values: {path}", *map(report, rows), sep="\n")
    for trained, row in zip(compared, rows, strict=True) if args.save_codes else ():
        dataset = trained.dataset("all" if trained.config.file else "test")
        coordinates = trained.coordinates(dataset, row["rank"])
        written = evaluation.save_codes(args, "singular", trained, coordinates, dataset, "coordinates")
        of = f"{len(dataset):,} {trained.config.rows}{' in their order' if trained.config.file else ' of the test set'}"
        error = evaluation.error_at_rank(trained, row["rank"], size=args.test_size)
        print(f"{row['rank']} coordinates of {of}: {written}")
        print(f"  test error of what they decode to: {error:.4g}")


if __name__ == "__main__":
    cli.run(main)

#!/usr/bin/env python
"""One row of metrics per checkpoint: reconstruction, FID and KID of samples, rank, isometry, size and training time.

python evaluate.py --dataset mnist --model-name ae irmae vae
python evaluate.py --dataset mnist --model-name ae irmae vae --features classifier
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import data
from experiments import fid_features as features
from experiments import run
from experiments.columns import COLUMNS, SAMPLERS
from experiments.trained import Experiment, joined, open_experiment, output_path
from models.layers.ssim import ssim
from utils import cli, files, isometry, latents, metrics
from utils.errors import UserError

FITTED = 10_000  # training codes that a density is fitted to
PAIRS, DELTA = 1000, 0.01  # of isometry.py: pairs of steps, and their length


def parse_arguments() -> argparse.Namespace:
    parser = cli.Parser(__doc__.splitlines()[0])
    group = parser.add_argument_group("metrics")
    group.add_argument(
        "--features",
        nargs="+",
        choices=("inception", "classifier", "none"),
        default=["inception"],
        help="of FID and KID. classifier: a small one trained once on the labelled data set; its distances are called "
        "FID_cls and KID_cls; none: leave them out",
    )
    group.add_argument(
        "--inception-weights", metavar="FILE", help="weights-inception-2015-12-05-*.pth (default: downloaded)"
    )
    what = "; ".join(f"{name}: {title}" for name, title in SAMPLERS.items())
    group.add_argument(
        "--samplers", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS), help=f"where samples come from. {what}"
    )
    group.add_argument(
        "--fid-samples",
        type=cli.at_least_two,
        default=10_000,
        metavar="N",
        help="samples to compare with the test images",
    )
    group.add_argument("-d", type=cli.positive, default=4, help="Gaussians of gmm")
    group.add_argument("--test-size", type=cli.positive, metavar="N", help="test images (default: all)")
    cli.add_data(parser, data.DATASETS)
    cli.add_linear_layers(cli.add_model(parser))
    cli.add_run(parser, batch_size=500)
    cli.add_results(cli.add_checkpoint(parser, several=True))
    return parser.parse_args()


def open_extractors(args: argparse.Namespace, experiment: Experiment) -> list[features.Extractor]:
    """The networks of ``--features``; what cannot be had is said once, on standard error, and left out."""
    found = []
    for kind in dict.fromkeys(args.features):
        if kind == "none":
            continue
        if kind == "classifier":
            folder = Path(args.checkpoint) / "features"
            found.append(features.classifier(folder, experiment.data, experiment.device, experiment.load))
            continue
        try:
            found.append(features.inception(args.inception_weights, experiment.device))
        except features.FeaturesUnavailable as reason:
            print(f"warning: FID and KID are left out: {reason}", file=sys.stderr)
    return found


class Reference:
    """The test images, and the features of them by each extractor: shared by all models of the same images."""

    def __init__(self, args: argparse.Namespace, experiment: Experiment):
        self.dataset = experiment.load("test", args.test_size)
        if len(self.dataset) < 2:
            raise UserError(
                f"{len(self.dataset)} test image: a distribution has at least 2; raise --test-size or give more data"
            )
        self.extractors = open_extractors(args, experiment)
        self.features = {
            extractor.suffix: extractor.of(self.dataset.batches(500), len(self.dataset), "test images")
            for extractor in self.extractors
        }

    def distances(self, batches: Callable[[], Iterator[Tensor]], num: int, source: str, seed: int) -> dict[str, float]:
        """FID and, for samples, KID of ``num`` images by every extractor."""
        found = {}
        for extractor in self.extractors:
            real, fake = self.features[extractor.suffix], extractor.of(batches(), num, source)
            found[f"fid{extractor.suffix}_{source}"] = metrics.frechet_distance(real, fake)
            if source in SAMPLERS:
                found[f"kid{extractor.suffix}_{source}"] = metrics.kernel_distance(real, fake, seed)
        return found


@torch.no_grad()
def decoded(experiment: Experiment, codes: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Images of codes in batches, on the device, clamped to [0, 1]: never all of them in memory."""
    for part in codes.float().split(batch_size):
        yield experiment.model.decode(part.to(experiment.device)).clamp(0, 1)


def reconstruction(experiment: Experiment, dataset: data.Dataset, codes: Tensor, batch_size: int) -> dict[str, float]:
    """Mean squared error and SSIM of all test images and their reconstructions."""
    squared = similarity = torch.zeros((), dtype=torch.float64, device=experiment.device)
    outputs = decoded(experiment, codes, batch_size)
    for x, y in zip(dataset.batches(batch_size, device=experiment.device), outputs, strict=True):
        squared = squared + F.mse_loss(y, x, reduction="none").mean(dim=(1, 2, 3)).double().sum()
        similarity = similarity + ssim(y, x).double().sum()
    return {"mse": float(squared) / len(dataset), "ssim": float(similarity) / len(dataset)}


def draw(experiment: Experiment, sampler: str, training: Callable[[], Tensor], args: argparse.Namespace) -> Tensor:
    """``(--fid-samples, n)`` codes of a sampler. Raises UserError where the model has no prior."""
    num, seed = args.fid_samples, args.seed
    if sampler == "prior":
        return experiment.model.sample_prior(num, torch.Generator().manual_seed(seed))
    if sampler == "mvg":
        return latents.sample_gaussian(training(), num, seed)
    # Its draws come sorted by component, which no distance between sets can see.
    return torch.from_numpy(latents.fit_mixture(training(), args.d, seed).sample(num)[0]).float()


def isometry_r(experiment: Experiment, codes: Tensor, seed: int) -> float | None:
    """Correlation of inner products in latent and data space, as isometry.py's first column."""
    generator = torch.Generator().manual_seed(seed)
    chosen = codes[torch.randperm(len(codes), generator=generator)[:PAIRS]].to(experiment.device)
    found = isometry.inner_products(experiment.model.decode, chosen, DELTA, generator)
    return isometry.pearson(found["latent"], found["mse-difference"])


def training_time(experiment: Experiment) -> dict[str, float | None]:
    """Epochs and seconds (training and validation) as the checkpoint counted them; a bare state dict knows neither."""
    saved = run.read(experiment.path)
    seconds = [row["seconds"] for row in saved.metrics]
    return {"epochs": saved.epoch or None, "training_seconds": sum(seconds) if seconds else None}


def measure(experiment: Experiment, reference: Reference, args: argparse.Namespace) -> dict:
    """The row of one checkpoint; what a model does not have (a prior, say) is None."""
    dataset, batch_size = reference.dataset, args.batch_size
    codes = latents.encode(experiment.model, dataset, batch_size, experiment.device)
    spectrum = latents.spectrum(codes)
    row = reconstruction(experiment, dataset, codes, batch_size)

    @cache
    def training() -> Tensor:
        train_set = experiment.load("train")
        first = train_set.first(min(FITTED, len(train_set)))
        return latents.encode(experiment.model, first, batch_size, experiment.device)

    # Midpoints of the lines between random pairs of test images.
    partner = codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(args.seed))]
    sets = {"reconstruction": codes, "interpolation": torch.lerp(codes, partner, 0.5)}
    if reference.extractors:
        for sampler in dict.fromkeys(args.samplers):
            try:
                sets[sampler] = draw(experiment, sampler, training, args)
            except UserError as reason:
                if sampler != "prior":
                    raise
                print(f"{experiment.name}: {reason}")
    for source, drawn in sets.items():
        row |= reference.distances(
            lambda drawn=drawn: decoded(experiment, drawn, batch_size), len(drawn), source, args.seed
        )
    row |= {"rank": spectrum.rank(), "effective_rank": spectrum.effective_rank()}
    row["isometry"] = isometry_r(experiment, codes, args.seed)
    row["parameters"] = sum(p.numel() for p in experiment.model.parameters())
    row |= training_time(experiment)
    return {key: row.get(key) for key in COLUMNS}


def markdown(rows: list[dict]) -> str:
    """The table as Markdown: the metrics that at least one of the models has."""
    shown = {key: column for key, column in COLUMNS.items() if any(row[key] is not None for row in rows)}
    header = ["model", *(column.title for column in shown.values())]
    cells = [[row["model_name"], *(column.text(row[key]) for key, column in shown.items())] for row in rows]
    return files.markdown_table(header, cells)


def main() -> None:
    args = parse_arguments()
    if "none" in args.features and len(set(args.features)) > 1:
        raise UserError(f"--features {' '.join(args.features)}: none leaves no other")
    experiments = [open_experiment(args, name) for name in dict.fromkeys(args.model_name or [None])]
    references: dict[tuple, Reference] = {}
    rows = []
    for experiment in experiments:
        images = (experiment.data["image_size"], experiment.data["channels"], experiment.data["path"])
        if images not in references:
            references[images] = Reference(args, experiment)
        reference = references[images]
        about = experiment.summary() | {
            "test_images": len(reference.dataset),
            "fid_samples": args.fid_samples,
            "features": [extractor.name for extractor in reference.extractors],
            "classifier_accuracy": next((e.test_accuracy for e in reference.extractors if e.test_accuracy), None),
            "seed": args.seed,
        }
        rows.append(about | measure(experiment, reference, args))
    table = markdown(rows)
    path = output_path(args, "evaluate", joined([experiment.name for experiment in experiments]), ".json")
    files.write_json(path, rows)
    files.write_csv(
        path.with_suffix(".csv"), [{"model_name": r["model_name"]} | {k: r[k] for k in COLUMNS} for r in rows]
    )
    with files.replacing(path.with_suffix(".md")) as temporary:
        temporary.write_text(table)
    print(table, end="")
    print(f"metrics of {len(rows)} model{'s' * (len(rows) > 1)} on {args.dataset}: {path}, .csv and .md")


if __name__ == "__main__":
    cli.run(main)

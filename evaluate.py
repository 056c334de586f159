#!/usr/bin/env python
"""One row of metrics per checkpoint: reconstruction, FID and KID of samples, rank, isometry, size and training time.

python evaluate.py --dataset mnist --model-name ae irmae vae
python evaluate.py --dataset mnist --model-name ae irmae vae --features classifier
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import data
from experiments import evaluation
from experiments import fid_features as features
from experiments.columns import COLUMNS, SAMPLERS
from experiments.trained import Trained
from models.layers.ssim import ssim
from utils import cli, files, isometry, latents, metrics
from utils.errors import UserError

PAIRS, DELTA = 1000, 0.01  # pairs of steps, and their length
WIDTH = 120  # characters of the printed table
DISTANCES = [f"fid{suffix}_{source}" for source in ("mvg", "gmm", "prior", "reconstruction") for suffix in ("", "_cls")]
FIRST = ["mse", "rank", *DISTANCES, "effective_rank", "isometry", "ssim", "epochs", "parameters"]  # most telling first


class Reference:
    """The test images, and the features of them by each extractor: shared by all models of the same images."""

    def __init__(self, args: argparse.Namespace, trained: Trained):
        self.dataset = evaluation.test_set(trained, args.test_size)
        self.extractors: list[features.Extractor] = []
        if trained.config.file:
            print("FID, KID and SSIM compare images: left out")
        for kind in dict.fromkeys(args.features if not trained.config.file else ()):
            if kind == "classifier":
                self.extractors.append(features.classifier(Path(args.checkpoint) / "features", trained))
            elif kind == "inception":
                try:
                    self.extractors.append(features.inception(args.inception_weights, trained.device))
                except features.FeaturesUnavailable as reason:
                    other = ", or use --features classifier" * (self.dataset.labels is not None)
                    print(f"warning: FID and KID are left out: {reason}{other}", file=sys.stderr)
        size = len(self.dataset)
        self.features = [each.of(self.dataset.batches(500), size, "test images") for each in self.extractors]

    def distances(self, trained: Trained, codes: Tensor, source: str, seed: int) -> dict[str, float]:
        """FID and, for samples, KID of the images of codes ``(M, n)``, by every extractor."""
        found = {}
        for extractor, real in zip(self.extractors, self.features, strict=True):
            fake = extractor.of(trained.decode_batches(codes), len(codes), source)
            found[f"fid{extractor.suffix}_{source}"] = metrics.frechet_distance(real, fake)
            if source in SAMPLERS:
                found[f"kid{extractor.suffix}_{source}"] = metrics.kernel_distance(real, fake, seed)
        return found

    def summary(self) -> dict:
        """What the distances of a row depend on."""
        accuracy = next((each.test_accuracy for each in self.extractors if each.test_accuracy), None)
        names = [each.name for each in self.extractors]
        return {"test_images": len(self.dataset), "features": names, "classifier_accuracy": accuracy}


def similarity(trained: Trained, dataset: data.Dataset, codes: Tensor) -> float:
    """Mean SSIM of all test images and their reconstructions."""
    batches = zip(dataset.batches(trained.batch_size, trained.device), trained.decode_batches(codes), strict=True)
    # A few at a time: a convolution in float64 copies each pixel eleven times.
    parts = ((x, y) for batch in batches for x, y in zip(*(images.split(50) for images in batch), strict=True))
    found = [ssim(y.double(), x.double()) for x, y in parts]
    return float(torch.cat(found).mean())


def draw(trained: Trained, sampler: str, args: argparse.Namespace) -> Tensor | None:
    """``(--fid-samples, n)`` codes of a sampler; None for the prior of a model that has none, which is printed."""
    if sampler == "gmm":  # component by component, to which no distance between sets is sensitive
        mixture = latents.fit_mixture(trained.training_codes(), args.d, args.seed)
        return latents.sample_mixture(mixture, args.fid_samples)
    try:
        return trained.sample(sampler, args.fid_samples, args.seed)
    except UserError as reason:
        if sampler != "prior":
            raise
        print(f"{trained.name}: {reason}")
        return None


def isometry_r(trained: Trained, codes: Tensor, delta: float, seed: int) -> float | None:
    """Correlation of inner products of steps of length ``delta`` in latent and data space, of uniform pairs."""
    generator = torch.Generator().manual_seed(seed)
    chosen = codes[torch.randperm(len(codes), generator=generator)[:PAIRS]].to(trained.device)
    pairs = isometry.uniform_pairs(*chosen.shape, generator)
    found = isometry.inner_products(lambda z: trained.model.decode(z).flatten(1), chosen, pairs, delta)  # no SSIM
    return isometry.pearson(found["latent"], found["mse-difference"])


def measure(trained: Trained, reference: Reference, args: argparse.Namespace) -> dict:
    """The metrics of one checkpoint; what a model does not have (a prior, say) is None."""
    codes = trained.codes(reference.dataset)
    spectrum = latents.spectrum(codes)
    row: dict = {"mse": evaluation.reconstruction_error(trained, reference.dataset, codes)}
    if not trained.config.file:
        row["ssim"] = similarity(trained, reference.dataset, codes)

    # Midpoints of the lines between random pairs of test images.
    partner = codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(args.seed))]
    sets: dict[str, Tensor | None] = {"reconstruction": codes, "interpolation": torch.lerp(codes, partner, 0.5)}
    if reference.extractors:
        sets |= {sampler: draw(trained, sampler, args) for sampler in dict.fromkeys(args.samplers)}
    for source, drawn in sets.items():
        if drawn is not None:
            row |= reference.distances(trained, drawn, source, args.seed)
    row |= {"rank": spectrum.rank(), "effective_rank": spectrum.effective_rank()}
    delta = max(DELTA, isometry.shortest_step(codes))
    row |= {"isometry": isometry_r(trained, codes, delta, args.seed), "epochs": trained.epochs}
    row |= {"parameters": sum(p.numel() for p in trained.model.parameters()), "training_seconds": trained.seconds}
    fid = min(len(codes), args.fid_samples) if reference.extractors else None
    classified = len(trained.dataset("test")) if reference.summary()["classifier_accuracy"] else None
    found = evaluation.cautions(trained, rank=len(codes), fid=fid, classified=classified)
    found += [f"codes so large that isometry is that of steps of {delta:.2g}, not {DELTA}"] * (delta > DELTA)
    return {key: row.get(key) for key in COLUMNS} | {"cautions": found}


def markdown(rows: list[dict], chosen: Sequence[str] | None = None, width: int | None = None) -> str:
    """The table as Markdown, of the metrics that at least one of the models has.

    Args:
        chosen: the metrics to show; None: all, or with ``width`` (characters) as many of ``FIRST`` as fit.
    """
    keys = [key for key in chosen or (FIRST if width else COLUMNS) if any(row[key] is not None for row in rows)]
    while True:
        header = ["model", *(COLUMNS[key].title for key in keys)]
        cells = [[row["model_name"], *(COLUMNS[key].text(row[key]) for key in keys)] for row in rows]
        table = files.markdown_table(header, cells)
        if chosen or width is None or table.index("\n") <= width or len(keys) < 2:
            return table
        keys.pop()


def main() -> None:
    parser = cli.Parser(__doc__.splitlines()[0])
    add = parser.add_argument_group("metrics").add_argument
    what = "of FID and KID. classifier: a small one trained once on the labelled data set; its distances are called "
    what += "FID_cls and KID_cls; none: leave them out"
    add("--features", nargs="+", choices=("inception", "classifier", "none"), default=["inception"], help=what)
    add("--inception-weights", metavar="FILE", help="weights-inception-2015-12-05-*.pth (default: downloaded)")
    what = "where samples come from" + "".join(f"; {name}: {title}" for name, title in SAMPLERS.items())
    add("--samplers", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS), help=what)
    add("--fid-samples", type=cli.at_least_two, default=10_000, metavar="N", help="samples to compare with test images")
    add("-d", type=cli.positive, default=4, help="Gaussians of gmm")
    what = f"of the printed table (default: the most telling that fit into {WIDTH} characters): {', '.join(COLUMNS)}"
    add("--columns", nargs="+", choices=list(COLUMNS), metavar="NAME", help=what)
    evaluation.add_flags(parser, several=True)
    args = parser.parse_args()
    if "none" in args.features and len(set(args.features)) > 1:
        raise UserError(f"--features {' '.join(args.features)}: none leaves no other")

    references: dict[tuple, Reference] = {}
    rows = []
    for trained in evaluation.all_from_args(args):
        config = trained.config
        images = (config.image_size, config.channels, config.data_path, config.white, config.skip_corrupt)
        images += (*config.data_options().values(), str(config.file))
        if images not in references:
            references[images] = Reference(args, trained)
        about = trained.summary() | references[images].summary() | {"fid_samples": args.fid_samples, "seed": args.seed}
        rows.append(about | measure(trained, references[images], args))
    path = evaluation.output_path(args, "evaluate", *(row["model_name"] for row in rows), suffix=".json")
    files.write_json(path, rows)
    files.write_csv(path.with_suffix(".csv"), [{key: row[key] for key in ("model_name", *COLUMNS)} for row in rows])
    files.write_text(path.with_suffix(".md"), markdown(rows))
    print(markdown(rows, args.columns, WIDTH), end="")
    if lacking := [key for key in args.columns or () if all(row[key] is None for row in rows)]:
        print(f"--columns {' '.join(lacking)}: none of these models has it, or it was not asked for (--features)")
    for row in rows:
        if row["cautions"]:
            print(f"{row['model_name']}: {'; '.join(row['cautions'])}")
    print(f"all metrics of {len(rows)} model{'s' * (len(rows) > 1)} on {args.dataset}: {path}, .csv and .md")


if __name__ == "__main__":
    cli.run(main)

"""What the evaluation scripts share: their flags, the checkpoints that these name, and where results go."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import data
from experiments.run import RunConfig, read
from experiments.trained import POSTERIORS, Trained, build
from utils import checkpoint, cli, devices, files, plots
from utils.errors import UserError
from utils.grids import Grid, draw

# Fewer make a FID larger (Chong & Forsyth 2020, arXiv 1911.07023), or an accuracy uncertain by more than a hundredth.
MIN_FID, MIN_CLASSIFIED = 10_000, 1_000


def add_flags(
    parser: cli.Parser, batch_size: int = 500, several: bool = False, posterior: str = "sample", test_size: bool = True
) -> argparse._ArgumentGroup:
    """The flags of every evaluation script; the group of those about files.

    Args:
        several: of scripts that compare models. With ``test_size`` by so many of their test images.
    """
    images = cli.add_data(parser, data.DATASETS, data.name_of_file)
    if several and test_size:
        images.add_argument("--test-size", type=cli.positive, metavar="N", help="test images (default: all)")
    cli.add_model(parser, linear_layers=True)
    group = cli.add_run(parser, batch_size=batch_size)
    what = "the code of an encoder that gives a distribution"
    what += "".join(f"; {name}: {title}" for name, title in POSTERIORS.items())
    group.add_argument("--posterior", choices=list(POSTERIORS), default=posterior, help=what)
    group = cli.add_checkpoint(parser, several=several)
    cli.add_results(group)
    return group


def from_args(args: argparse.Namespace, name: str | None = None) -> Trained:
    """The trained model ``name``, else ``--model-name``, else the newest. Raises UserError for a flag against it."""
    name = args.model_name if name is None else name
    path = checkpoint.path_of(args.checkpoint, args.dataset, newest(args) if name is None else name, reading=True)
    saved = read(path)
    check_flags(args, saved.config, path)
    if saved.config.dataset != args.dataset:
        found = f"{path} was trained on {saved.config.dataset}, not {args.dataset}"
        if not (saved.config.file and data.file_options(args.dataset, {})):
            try:
                data.describe(args.dataset, saved.config.image_size, saved.config.channels)
            except UserError as error:
                raise UserError(f"{found}, whose samples are of another shape: choose another --model-name") from error
        print(f"warning: {found}", file=sys.stderr)
    given = {"dataset": args.dataset, "skip_corrupt": args.skip_corrupt, "white": args.white}
    saved.config = replace(saved.config, **{key: value for key, value in given.items() if value})
    trained = build(path, saved, devices.choose(args.gpu), args.data_path)
    return replace(trained, posterior=args.posterior, seed=args.seed, batch_size=args.batch_size)


def all_from_args(args: argparse.Namespace) -> list[Trained]:
    """The trained models of a ``--model-name`` that takes several names, each once."""
    return [from_args(args, name) for name in dict.fromkeys(args.model_name or [None])]


def newest(args: argparse.Namespace) -> str:
    """The name of the newest checkpoint of ``--dataset`` that is none of reproduce.py's, which is printed.

    Raises UserError if there is none.
    """
    folder = Path(args.checkpoint) / args.dataset
    names = checkpoint.available(folder, groups=False)
    if not names:
        dataset = args.data_path if data.file_options(args.dataset, {}) else args.dataset
        advice = f"train one first: python train.py --dataset {dataset}"
        if others := checkpoint.available(folder):
            advice = f"of reproduce.py's give one by --model-name: {', '.join(others[:3])} ..."
        raise UserError(f"{folder}: no checkpoint there (--checkpoint, --dataset); {advice}")
    newer = checkpoint.available(folder)[0]
    passed = f" (but for {newer}, of reproduce.py or a best epoch)" if newer != names[0] else ""
    print(f"using the newest checkpoint of {args.dataset}: {folder / names[0]}{passed}")
    return names[0]


def check_flags(args: argparse.Namespace, config: RunConfig, path: Path) -> None:
    """Raises UserError where a flag contradicts the checkpoint, with both values."""
    if args.vae and config.model != "vae":
        raise UserError(f"--vae contradicts {path}, whose model is {config.model}")
    values = {"linear_layers": 0} | config.to_dict() | config.options
    names = {"-n": "latent_dim", "-l": "linear_layers", "--image-size": "image_size", "--channels": "channels"}
    for flag, key in names.items():
        given = getattr(args, key)
        if given is not None and given != values[key]:
            found = f"{flag.lstrip('-')} = {values[key]}"
            raise UserError(f"{flag} {given} contradicts {path}, whose model {config.model} has {found}")


def test_set(trained: Trained, size: int | None) -> data.Dataset:
    """The first ``size`` test samples, else all. Raises UserError where these are fewer than a correlation needs."""
    dataset, config = trained.dataset("test", size), trained.config
    if len(dataset) < 2:
        advice = "raise --test-size" if size else f"{config.data_path} has no more: add some"
        raise UserError(f"1 test {config.rows.rstrip('s')}: a covariance needs at least 2; {advice}")
    return dataset


def reconstruction_error(trained: Trained, dataset: data.Dataset, codes: Tensor) -> float:
    """Mean squared error of what the codes ``(N, n)`` of a data set decode to: MSE in every script.

    Of images clamped to [0, 1], the images that are shown; of a file in scaled units.
    """
    batches = zip(dataset.batches(trained.batch_size, trained.device), trained.decode_batches(codes), strict=True)
    return float(torch.cat([(y - x).square().flatten(1).mean(dim=1) for x, y in batches]).double().mean())


def error_at_rank(trained: Trained, rank: int, split: str = "test", size: int | None = None) -> float:
    """``reconstruction_error`` of a split, of its first ``rank`` coordinates, the others being 0."""
    dataset = trained.dataset(split, size)
    return reconstruction_error(trained, dataset, trained.basis.codes(trained.coordinates(dataset, rank)))


def cautions(
    trained: Trained, *, rank: int | None = None, fid: int | None = None, classified: int | None = None
) -> list[str]:
    """What to know before the numbers of a checkpoint are quoted, in words; empty where there is nothing.

    Args:
        rank, fid, classified: how many codes a rank is of, images a FID is of, and test images an accuracy is of.
    """
    enough, epochs = 10 * trained.config.latent_dim, trained.config.epochs
    found = []
    if trained.epochs is not None and trained.epochs < epochs:
        found.append(f"checkpoint after {trained.epochs} of {epochs} epochs")
    if rank is not None and rank < enough:
        found.append(f"rank of only {rank:,} codes, fewer than 10 n = {enough:,}")
    if fid is not None and fid < MIN_FID:
        found.append(f"FID of only {fid:,} images, fewer than {MIN_FID:,}: biased upwards")
    if classified is not None and classified < MIN_CLASSIFIED:
        found.append(f"accuracy on only {classified:,} test images, fewer than {MIN_CLASSIFIED:,}")
    return found


def listed(cautions: Sequence[str]) -> str:
    """Cautions as the end of a printed line."""
    return "".join(f"; {caution}" for caution in cautions)


def joined(names: Sequence[str]) -> str:
    """A file name for the results of several models: ``ae+irmae``, which no other choice of several shares."""
    if len(names) == 1:
        return names[0]
    name = "+".join(name.replace("%", "%25").replace("+", "%2B") for name in names)
    if len(name.encode("utf-8", "surrogateescape")) > checkpoint.LONGEST_NAME:
        name = f"{names[0][:40]}+{len(names) - 1}-more-{files.fingerprint(name)}"
    return name


def output_path(args: argparse.Namespace, task: str, *names: str, suffix: str | None = None) -> Path:
    """``<save-path>/<dataset>/<task>/<model-name>.png``, or what ``--format`` says."""
    return (
        Path(args.save_path) / args.dataset / task / (joined(names) + (f".{args.format}" if suffix is None else suffix))
    )


def save_grids(args: argparse.Namespace, path: Path, compared: Sequence[Trained], grids: Sequence[Grid]) -> Path:
    """Write a grid of images for each model, in one figure; of a file's model its rows as CSV, or fields as ``.npy``.

    Returns the path, with the suffix of what was written.
    """
    (trained, *_), (grid, *_) = compared, grids
    if not trained.config.file:
        plots.save_figure(path, draw(grids, [each.name for each in compared], args.dataset, args.bare), args.dpi)
        return path
    if grid.images.ndim > 2:
        return files.write_array(path.with_suffix(".npy"), grid.images.numpy())
    rows = [dict(zip(trained.scaling.names, row, strict=True)) for row in grid.images.tolist()]
    return files.write_csv(path.with_suffix(".csv"), rows)


def save(args: argparse.Namespace, task: str, names: Sequence[str], figure: "plots.Figure", numbers: object) -> Path:
    """Write a figure of the models of these names and, beside it as JSON, its numbers; the path of the figure."""
    path = output_path(args, task, *names)
    plots.save_figure(path, figure, args.dpi)
    files.write_json(path.with_suffix(".json"), numbers)
    return path


def save_codes(
    args: argparse.Namespace, task: str, trained: Trained, codes: Tensor, dataset: data.Dataset, what: str
) -> str:
    """Write codes of a data set and its labels, if any, as ``<model-name>-<what>.npy`` and ``-labels.npy``; paths."""
    of_labels = what.replace("codes", "labels") if "codes" in what else "labels"
    arrays = {what: codes.numpy()} | ({} if dataset.labels is None else {of_labels: dataset.labels.numpy()})
    paths = {key: output_path(args, task, f"{trained.name}-{key}", suffix=".npy") for key in arrays}
    return " and ".join(str(files.write_array(paths[key], array)) for key, array in arrays.items())

#!/usr/bin/env python
"""How many coordinates an array needs: autoencoders with a gap in the spectrum of their code, beside estimators.

python dimension.py --dataset my.npy
python dimension.py --dataset manifold:sphere-5-in-50 --methods irmae irmae-wd twonn mle
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import data
from data import manifolds
from experiments import seeded_runs, train_flags
from experiments.intrinsic_dimension import ESTIMATORS, TRAINED, TRAINING, Points, Settings, run_once
from utils import cli, files, flags
from utils.errors import UserError
from utils.provenance import provenance

METHODS = ["irmae", "irmae-wd", "lorae", "rrae", "twonn", "mle", "lpca", "danco"]
MANIFOLD = "manifold:"
GAP = 1.5  # decades: a smaller fall is no gap
LEAD = 0.5  # decades by which the largest fall exceeds the next, or it does not stand out
OVERFIT = 2.0  # error of test rows over that of training rows
UNEXPLAINED = 0.1  # of the variance: a code that loses more says little about the data
THRESHOLDS = (1e-2, 1e-6)  # of σ/σ₁: ranks at both are shown


def parse_arguments() -> argparse.Namespace:
    parser = cli.Parser(__doc__.splitlines()[0])
    group = parser.add_argument_group("data")
    what = "files of one's own (docs/dimension.md), or known manifolds: manifold:NAME, manifold:tuning, manifold:test"
    group.add_argument("--dataset", nargs="+", required=True, metavar="FILE|NAME", help=what)
    group.add_argument("--size", type=cli.positive, default=4_000, metavar="N", help="points of a manifold")
    train_flags.add_file_options(parser)
    group = parser.add_argument_group("methods")
    choices = [*TRAINED, *ESTIMATORS]
    what = f"trained: {', '.join(TRAINED)}; estimators of scikit-dimension: {', '.join(ESTIMATORS)}"
    group.add_argument("--methods", nargs="+", choices=choices, default=METHODS, metavar="METHOD", help=what)
    group.add_argument("--arch", default=TRAINING["architecture"], help="hidden layers of the networks")
    add = group.add_argument
    add("-n", "--latent-dim", type=cli.at_least_two, default=TRAINING["latent_dim"], metavar="N", help="n, of the code")
    add("--steps", type=cli.positive, default=TRAINING["steps"], help="of the optimiser, in each training")
    add("--batch-size", type=cli.positive, default=TRAINING["batch_size"], metavar="B", help="rows at a time")
    add("--lr", type=cli.positive_float, default=TRAINING["lr"], help="learning rate, falls to 0 as a cosine")
    decay = TRAINED["irmae-wd"]["weight_decay"]
    add("--weight-decay", type=cli.non_negative_float, default=decay, metavar="W", help="of irmae-wd")
    group = parser.add_argument_group("computation")
    group.add_argument("--seeds", type=cli.positive, default=3, metavar="S", help="trainings of each method")
    group.add_argument("--seed", type=cli.seed, default=0, help="the first of them")
    group = parser.add_argument_group("files")
    cli.add_results(group)
    flags.add_figures(group)
    args = parser.with_defaults(given := parser.parse_given())
    idle = ["weight_decay"] * ("irmae-wd" not in args.methods)
    idle += ["arch", *TRAINING] * TRAINED.keys().isdisjoint(args.methods)
    if key := next((key for key in idle if key in given), None):
        raise UserError(f"--{key.replace('_', '-')} {given[key]}: has no effect on --methods {' '.join(args.methods)}")
    return args


def settings_of(args: argparse.Namespace) -> dict[str, Settings]:
    """What a finished run must agree in, by method; nothing for an estimator."""
    training = {"architecture": args.arch, "latent_dim": args.latent_dim, "lr": args.lr, "steps": args.steps}
    training |= {"batch_size": args.batch_size}
    chosen = {name: training | TRAINED[name] if name in TRAINED else {} for name in args.methods}
    for own in chosen.values():
        if "weight_decay" in own:
            own["weight_decay"] = args.weight_decay
    return chosen


def load(name: str, args: argparse.Namespace) -> Points:
    """The rows of a file, or the points of a manifold; without columns that are constant in the training part."""
    dimension, coordinates = None, None
    if name.startswith(MANIFOLD):
        values, dimension, coordinates = manifolds.manifold(name.removeprefix(MANIFOLD), args.size, args.seed)
        train, test = np.split(values, [len(values) * 9 // 10])
        parts = [torch.from_numpy((x - train.mean(axis=0)) / train.std(axis=0)).float() for x in (train, test)]
        source = f"{name}, {len(values):,} points, seed {args.seed}"
    elif (kind := data.name_of_file(name)) is None:
        raise UserError(f"--dataset {name}: expected a file of numbers (.npy, .npz, .csv, .mat) or manifold:NAME")
    else:
        file = data.file_options(kind, vars(args))
        splits = [data.load(kind, split, name, file=file).store.flatten(1) for split in ("train", "valid", "test")]
        parts = [splits[0], torch.cat(splits[1:])]
        source = f"{name}, {len(parts[0]):,} rows to train on and {len(parts[1]):,} to test on"
    vary = parts[0].std(dim=0) > 0
    return Points(parts[0][:, vary], parts[1][:, vary], source, dimension, coordinates)


def run(points: Points, folder: Path, args: argparse.Namespace) -> list[dict]:
    """The rows of all methods and seeds; those that an earlier call finished are read from the folder."""
    chosen, seeds = settings_of(args), range(args.seed, args.seed + args.seeds)
    path = folder / "runs.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    data = files.fingerprint(points.train.numpy().tobytes() + points.test.numpy().tobytes())
    done = seeded_runs.finished(path, {"seconds"}, data, chosen, seeds)  # an estimate may be None
    for method in chosen:
        for seed in seeds:
            if (method, seed) not in done:
                row = run_once(points, method, chosen[method], seed)
                row |= {"settings": chosen[method], "data": data, "provenance": seeded_runs.run_provenance(False, seed)}
                seeded_runs.append_row(path, row)
                done[method, seed] = row
                print(
                    f"{folder.parent.name}: {method}, seed {seed}: {row['estimate']} ({row['seconds']} s)", flush=True
                )
    return [done[method, seed] for method in chosen for seed in seeds]


def doubts(row: dict) -> list[str]:
    """Why the gap of a training is not to be trusted; empty where it is."""
    falls, rank = sorted(row["falls"]), row["estimate"]
    found = []
    if not falls or falls[-1] < GAP:
        found.append(f"no gap: the largest fall is {falls[-1] if falls else 0:.1f} decades")
    elif len(falls) > 1 and falls[-1] - falls[-2] < LEAD:
        found.append(f"two gaps: falls of {falls[-1]:.1f} and {falls[-2]:.1f} decades")
    if row["errors"][rank - 1] > UNEXPLAINED:
        found.append(f"{rank} coordinates lose {row['errors'][rank - 1]:.0%} of the variance: train longer")
    if row["errors"][-1] > OVERFIT * row["train_error"] and row["errors"][-1] > 1e-3:
        ratio = row["errors"][-1] / row["train_error"]
        found.append(f"too few rows: the error of new rows is {ratio:.1f} times that of the training rows")
    return found


def summary(method: str, rows: list[dict]) -> dict:
    """A line of the table: the method's runs together. The estimate is None where every run of an estimator failed."""
    values = [row["estimate"] for row in rows if row["estimate"] is not None]
    line: dict = {"method": method, "seconds": float(np.median([row["seconds"] for row in rows])), "doubts": []}
    if not values:
        return line | {"estimate": None, "doubts": ["no estimate: too few rows, or columns"]}
    line |= {"estimate": float(np.median(values)), "lowest": min(values), "highest": max(values)}
    if method in ESTIMATORS:
        return line
    middle = min(rows, key=lambda row: (abs(row["estimate"] - line["estimate"]), row["seed"]))  # a run of the median
    rank, spectrum = middle["estimate"], middle["spectrum"]
    line |= {"decades": max(middle["falls"], default=0.0), "error": middle["errors"][rank - 1]}
    line |= {"local": middle["local"], "sides": [spectrum[rank - 1], spectrum[rank] if rank < len(spectrum) else None]}
    line["ranks"] = [sum(value > threshold for value in spectrum) for threshold in THRESHOLDS]
    found = {text.split(":")[0]: text for row in rows for text in doubts(row)}
    if len(set(values)) > 1:
        found["seeds"] = f"seeds disagree: {', '.join(map(str, values))}"
    return line | {"doubts": list(found.values())}


def table(lines: list[dict]) -> str:
    """The lines as text: trained methods with their gap, then estimators."""
    text = [f"{'method':9} estimate  {'seeds':14} gap, decades  {'σ_k/σ₁, σ_k+1/σ₁':17} ranks  local  error    s/run"]
    for line in lines:
        start = f"{line['method']:9} "
        if line["estimate"] is not None:
            start += f"{line['estimate']:8.3g}  {line['lowest']:.3g} to {line['highest']:.3g}"
        if "sides" in line:
            sides = ", ".join("none" if side is None else f"{side:.1e}" for side in line["sides"])
            local = "" if line["local"] is None else f"{line['local']:.1f}"
            middle = f"{line['decades']:12.1f}  {sides:17} {'-'.join(map(str, line['ranks'])):>5} {local:>6}"
            text.append(f"{start:34} {middle}  {line['error']:.1e} {line['seconds']:6.1f}")
        else:
            text.append(f"{start:34} {'':53} {line['seconds']:7.1f}")
        text += [f"{'':9} ! {doubt}" for doubt in line["doubts"]]
    return "\n".join(text)


def conclusion(lines: list[dict]) -> str:
    """What the methods say together, in a sentence."""
    trained = [line for line in lines if "sides" in line]
    sure = [line for line in trained if not line["doubts"]]
    numbers = sorted({int(line["estimate"]) for line in sure})
    found = " or ".join(map(str, numbers)) if numbers else "not known"
    text = f"coordinates of a code: {found} ({len(sure)} of {len(trained) or 'no'} trained methods are sure)"
    local = [line["local"] for line in sure if line["local"] is not None]
    local += [line["estimate"] for line in lines if "sides" not in line and line["estimate"] is not None]
    if local:
        text += f"; local dimension: {np.median(local):.1f}, from {min(local):.1f} to {max(local):.1f}"
    return text


def main() -> None:
    args = parse_arguments()
    from utils import plots  # slow to import: not for --help

    torch.set_num_threads(1)  # the networks are too small for more
    groups = {MANIFOLD + "tuning": manifolds.TUNING, MANIFOLD + "test": manifolds.TEST}
    chosen = [[MANIFOLD + key for key in groups[name]] if name in groups else [name] for name in args.dataset]
    for name in [name for each in chosen for name in each]:
        started = time.monotonic()
        points = load(name, args)
        place = data.name_of_file(name) or name.replace(MANIFOLD, "manifold-")
        folder = Path(args.save_path) / place / "dimension"
        rows = run(points, folder, args)
        methods = list(dict.fromkeys(args.methods))
        lines = [summary(method, [row for row in rows if row["model"] == method]) for method in methods]
        known = {"dimension": points.dimension, "global_dimension": points.global_dimension}
        content = {"data": points.source, "shape": list(points.train.shape), **known, "settings": settings_of(args)}
        content["provenance"] = provenance(torch.device("cpu"), args.seed)
        files.write_json(folder / "dimension.json", content | {"table": lines, "runs": rows})
        if trained := [row for row in rows if "spectrum" in row and row["seed"] == args.seed]:
            plots.save_figure(folder / f"dimension.{args.format}", plots.dimension(trained), args.dpi)
        truth = (
            "" if points.dimension is None else f"; truth: {points.dimension:g}, of a code {points.global_dimension}"
        )
        print(f"\n{points.source}{truth}\n{table(lines)}")
        print(
            f"{folder / 'dimension.json'} ({time.monotonic() - started:.0f} s)\n{name}: {conclusion(lines)}", flush=True
        )


if __name__ == "__main__":
    cli.run(main)

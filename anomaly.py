#!/usr/bin/env python
"""Anomaly detection on tabular data: RaDOGAGA and DAGMM beside IsolationForest and OneClassSVM (RaDOGAGA, section 5.3).

python anomaly.py --dataset thyroid                      20 runs of every model, on all cores
python anomaly.py --dataset my.csv --models radogaga-log isolation-forest --runs 5
"""

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.svm import OneClassSVM

import models
from data import tabular
from utils import cli, devices, files, loop
from utils.errors import Diverged, UserError

METRICS = ("precision", "recall", "f1", "roc_auc", "average_precision")
TITLES = {
    "radogaga-d": "RaDOGAGA, h(d) = d",
    "radogaga-log": "RaDOGAGA, h(d) = log d",
    "dagmm": "DAGMM",
    "isolation-forest": "IsolationForest",
    "one-class-svm": "OneClassSVM",
}

Settings = dict[str, object]
OVERRIDES = ("latent_dim", "components", "lambda1", "lambda2", "mixture", "epochs", "batch_size", "lr")


def preset(radogaga: Settings, dagmm: Settings, **training) -> dict[str, Settings]:
    """Settings of every model on one data set; ``training`` is what RaDOGAGA and DAGMM have in common."""
    radogaga = {"model": "radogaga", "prior": "gmm", "mixture": "network", **training, **radogaga}
    dagmm = {
        "model": "dagmm",
        "mixture": "network",
        "lambda_energy": 0.1,
        "lambda_covariance": 0.005,
        **training,
        "lr": 1e-3,
        **dagmm,
    }
    lambda2 = radogaga["lambda2"]
    return {
        "radogaga-d": radogaga | {"h": "d", "lambda1": 10 * lambda2},
        # The derivative of log(D + 0.001) is 1000 at D = 0: near there this is the same weight as above. It pulls most
        # where the reconstruction is best, and settles at a lower rate only.
        "radogaga-log": radogaga | {"h": "log", "lambda1": lambda2 / 100, "lr": training["lr"] / 3},
        "dagmm": dagmm,
        "isolation-forest": {"model": "isolation-forest", "n_estimators": 100},
        "one-class-svm": {"model": "one-class-svm", "nu": 0.05, "train_size": 5000},
    }


def networks(architecture: str, latent_dim: int, components: int, **others) -> Settings:
    return {"architecture": architecture, "latent_dim": latent_dim, "components": components, **others}


# RaDOGAGA's λ2 is about 6 D / w², D being the number of features, which makes one unit of the code one unit of the
# data, so that training need not find the scale; w is then the resolution. DAGMM's λ1 and λ2 are its paper's (section
# 4). docs/anomaly.md says how the rest was chosen: on training halves alone.
KDDCUP = {
    # Dozens of components: more hidden units than DAGMM's 10 keep them apart while training, EM finds them after it.
    "radogaga": networks(
        "mlp:64",
        12,
        32,
        noise_width=0.003,
        lambda2=8e7,
        mixture="em",
        estimation_width=64,
        estimation_dropout=0.0,
    ),
    "dagmm": networks("mlp:64", 12, 32, mixture="em"),
    "lr": 1e-2,
    "batch_size": 256,
}
PRESETS: dict[str, dict[str, Settings]] = {
    "kddcup": preset(**KDDCUP, epochs=2),
    "kddcup-rev": preset(**KDDCUP, epochs=4),
    "thyroid": preset(
        networks("mlp:30-24", 6, 2, noise_width=0.01, lambda2=3.6e5),
        networks("mlp:30-24", 6, 2, lr=3e-3),
        lr=1e-2,
        batch_size=256,
        epochs=200,
    ),
    "arrhythmia": preset(
        networks("mlp:64", 60, 1, noise_width=0.1, lambda2=1.6e5),
        networks("mlp:10", 2, 2, epochs=400),  # its paper's networks
        lr=3e-3,
        batch_size=64,
        epochs=50,
    ),
    "default": preset(
        networks("mlp:32-16", 4, 2, noise_width=0.03, lambda2=1e5),
        networks("mlp:32-16", 2, 2),
        lr=3e-3,
        batch_size=256,
        epochs=200,
    ),
}


def settings_of(dataset: str, model: str) -> Settings:
    """The preset of a data set and model; that of ``"default"`` for one's own file."""
    return PRESETS.get(dataset, PRESETS["default"])[model]


def train_network(x: torch.Tensor, settings: Settings, seed: int, computing_on: torch.device) -> models.Autoencoder:
    """A RaDOGAGA or DAGMM trained on the vectors ``x`` ``(N, D)``, its mixture fixed to that of all of them.

    Raises:
        UserError: fewer vectors than components. Diverged: the loss is no finite number any more.
    """
    settings = dict(settings)
    name, mixture, batch_size, epochs, rate = (
        settings.pop(key) for key in ("model", "mixture", "batch_size", "epochs", "lr")
    )
    if settings["components"] > len(x):
        raise UserError(
            f"--components {settings['components']}: a mixture needs at least one training sample for each, found "
            f"{len(x)} normal rows in the training half"
        )
    torch.manual_seed(seed)
    model = models.build(name, channels=x.shape[1], **settings).to(computing_on)
    optimizer = loop.make_optimizer(model, rate)
    dataset = tabular.VectorDataset(x.to(computing_on))
    step = loop.Step(model, optimizer, dataset, eager=True)
    for epoch in range(1, epochs + 1):
        *_, totals = loop.epoch(step, batch_size, seed, epoch)
        if not math.isfinite(totals.means()["loss"]):
            raise Diverged(
                f"{name}, seed {seed}: the training diverged in epoch {epoch} ({totals.means()}); try a lower --lr"
            )
    model.eval()
    model.fit_prior(dataset.batches(4096, device=computing_on), em=mixture == "em", seed=seed)
    return model


@torch.no_grad()
def network_scores(model: models.Autoencoder, x: torch.Tensor, computing_on: torch.device) -> np.ndarray:
    """``(N,)`` energies, −log of the density that the model estimates."""
    batches = tabular.VectorDataset(x).batches(4096, device=computing_on)
    return torch.cat([model.energy(batch).cpu() for batch in batches]).numpy()


def scores_of(
    train: torch.Tensor, test: torch.Tensor, settings: Settings, seed: int, computing_on: torch.device
) -> np.ndarray:
    """Train on normal vectors and score others, higher the stranger: ``(N, D)`` and ``(M, D)`` to ``(M,)``."""
    if settings["model"] == "isolation-forest":
        forest = IsolationForest(n_estimators=settings["n_estimators"], random_state=seed).fit(train.numpy())
        return -forest.score_samples(test.numpy())
    if settings["model"] == "one-class-svm":
        # Its cost grows with the square of the samples.
        kept = np.random.default_rng(seed).permutation(len(train))[: settings["train_size"]]
        machine = OneClassSVM(nu=settings["nu"], gamma="scale").fit(train.numpy()[kept])
        return -machine.score_samples(test.numpy())
    return network_scores(train_network(train, settings, seed, computing_on), test, computing_on)


def measure(scores: np.ndarray, anomaly: np.ndarray, ratio: float, seed: int) -> dict[str, float]:
    """Precision, recall and F1 when the share ``ratio`` of highest scores is flagged; ROC-AUC and average precision.

    Ties at the threshold, of duplicate rows say, are broken at random: exactly the share is flagged.
    """
    flagged = np.zeros(len(scores), dtype=bool)
    order = np.lexsort((np.random.default_rng(seed).random(len(scores)), -scores))
    flagged[order[: max(1, round(ratio * len(scores)))]] = True
    hits = int((flagged & anomaly).sum())
    precision, recall = hits / flagged.sum(), hits / anomaly.sum()
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(2 * precision * recall / (precision + recall)) if hits else 0.0,
        "roc_auc": float(roc_auc_score(anomaly, scores)),
        "average_precision": float(average_precision_score(anomaly, scores)),
    }


def parse_arguments() -> argparse.Namespace:
    parser = cli.Parser(__doc__.splitlines()[0])
    group = parser.add_argument_group("data")
    names = "; ".join(f"{name}: {title}" for name, title in tabular.DATASETS.items()).replace("%", "%%")
    group.add_argument("--dataset", default="thyroid", metavar="NAME|FILE", help=f"{names}; or a file of your own")
    group.add_argument(
        "--data-path", "--data_path", default="./datasets", metavar="DIR", help="folder of the data, or the file"
    )
    group.add_argument("--drop-constant", action="store_true", help="leave constant columns out of your own file")
    group = parser.add_argument_group("models (default: the preset of the data set, see docs/anomaly.md)")
    group.add_argument(
        "--models", nargs="+", choices=list(TITLES), default=list(TITLES), metavar="MODEL", help=", ".join(TITLES)
    )
    group.add_argument("-n", "--latent-dim", type=cli.positive, metavar="N", help="n, dimension of the code")
    group.add_argument("--components", type=cli.positive, metavar="K", help="K, Gaussians of the mixture")
    group.add_argument("--lambda1", type=cli.non_negative_float, metavar="L", help="RaDOGAGA's λ1")
    group.add_argument("--lambda2", type=cli.non_negative_float, metavar="L", help="RaDOGAGA's λ2")
    group.add_argument(
        "--mixture",
        choices=("em", "network"),
        help="what the trained codes are scored by: a mixture fitted to them by expectation-maximisation, or the "
        "published one, of the estimation network's memberships",
    )
    group.add_argument("--epochs", type=cli.positive, metavar="E", help="passes over the training samples")
    group.add_argument("--batch-size", type=cli.positive, metavar="B", help="samples at a time")
    group.add_argument("--lr", type=cli.positive_float, metavar="RATE", help="learning rate of Adam")
    group = parser.add_argument_group("computation")
    group.add_argument(
        "--runs", type=cli.positive, default=20, metavar="R", help="random splits, each with its own seed"
    )
    group.add_argument("--seed", type=cli.natural, default=0, help="of the first run; the next has the next number")
    group.add_argument("--jobs", type=cli.positive, default=os.cpu_count(), metavar="J", help="processes side by side")
    group.add_argument("--gpu", action="store_true", help="compute on the first CUDA device; without one, on the CPU")
    group = parser.add_argument_group("files")
    group.add_argument(
        "--save-path", default="./results", metavar="DIR", help="finished runs and tables go to DIR/<dataset>/anomaly/"
    )
    return parser.parse_args()


def choose_settings(args: argparse.Namespace) -> dict[str, Settings]:
    """The settings of each chosen model. Raises UserError for a flag that none of them has."""
    given = {key: getattr(args, key) for key in OVERRIDES if getattr(args, key) is not None}
    chosen = {}
    for model in args.models:
        preset = settings_of(args.dataset, model)
        chosen[model] = preset | {key: value for key, value in given.items() if key in preset}
    for key, value in given.items():
        if not any(key in settings for settings in chosen.values()):
            flag = "--" + key.replace("_", "-")
            raise UserError(
                f"{flag} {value}: none of the models {', '.join(args.models)} has such an option; leave it out"
            )
    return chosen


def check_halves(table: tabular.Table, seeds: list[int], chosen: dict[str, Settings]) -> None:
    """Raises UserError, before anything is trained, where a split cannot be used."""
    components = max((settings.get("components", 1) for settings in chosen.values()), default=1)
    for seed in seeds:
        train, _ = tabular.halves(table, seed)
        normal = int((~table.anomaly[train]).sum())
        if normal < components:
            raise UserError(
                f"--components {components}: a mixture needs at least one training sample for each, found {normal} "
                f"normal rows in the training half of seed {seed}; give more rows or fewer components"
            )


def run_once(table: tabular.Table, model: str, settings: Settings, seed: int, gpu: bool) -> dict:
    """One run: split, normalise, train, score. The split depends on the seed alone, so every model has the same."""
    started = time.monotonic()
    train, test = tabular.halves(table, seed)
    scaler = tabular.Scaler.fit(table.rows(train))
    normal = scaler(table.rows(train[~table.anomaly[train]]))
    scores = scores_of(normal, scaler(table.rows(test)), settings, seed, devices.choose(gpu))
    if not np.isfinite(scores).all():
        raise Diverged(
            f"{model}, seed {seed}: {int((~np.isfinite(scores)).sum())} scores are not finite; try a lower --lr"
        )
    if np.ptp(scores) == 0:
        raise Diverged(f"{model}, seed {seed}: every row has the same score; try a lower --lr")
    metrics = measure(scores, table.anomaly[test], float(table.anomaly.mean()), seed)
    return {"model": model, "seed": seed, **metrics, "seconds": round(time.monotonic() - started, 2)}


def start_worker(table: tabular.Table) -> None:
    """What a worker process does first: keep the table, compute on one core, and end with its parent."""
    global worker_table
    worker_table = table
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent tells us

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def work(model: str, settings: Settings, seed: int, gpu: bool) -> dict:
    return run_once(worker_table, model, settings, seed, gpu)


def run_all(table: tabular.Table, tasks: list[tuple], jobs: int) -> Iterator[dict]:
    """The rows of the tasks ``(model, settings, seed, gpu)``, each as soon as it is finished.

    Raises:
        UserError: a process was killed, for want of memory most likely.
    """
    if not tasks:
        return
    if jobs == 1:
        torch.set_num_threads(1)  # the same sums, in the same order, as in a worker
        for task in tasks:
            yield run_once(table, *task)
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # scikit-learn's and BLAS's threads, read when a process starts
    # One server imports PyTorch and scikit-learn, and every worker is forked from it; Windows has no such server.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(["torch", "sklearn.ensemble", "sklearn.svm", "models", "data.tabular"])
    with ProcessPoolExecutor(min(jobs, len(tasks)), context, start_worker, (table,)) as pool:
        try:
            for future in as_completed([pool.submit(work, *task) for task in tasks]):
                yield future.result()
        except BrokenProcessPool as error:
            raise UserError(
                f"--jobs {jobs}: a process was killed, most likely for want of memory; finished runs are kept, the "
                "same command with a lower --jobs goes on"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def read_rows(path: Path) -> list[dict]:
    """The finished runs of a file. A last line that a killed process left unfinished is cut off.

    Raises:
        UserError: a damaged line elsewhere.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: damaged ({error}); move it away to start afresh") from error
    complete, rest = lines[:-1], lines[-1]
    if rest:
        with files.replacing(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in complete))
    try:
        rows = [json.loads(line) for line in complete]
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: damaged ({error}); move it away to start afresh") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: damaged (row {number} is {row!r}); move it away to start afresh")
    # A row that lacks something was written by another version.
    needed = {"model", "seed", "settings", "data", "seconds", *METRICS}
    return [row for row in rows if needed <= row.keys()]


def append_row(path: Path, row: dict) -> None:
    with open(path, "a") as stream:
        stream.write(json.dumps(row) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def fingerprint(table: tabular.Table) -> str:
    """Twelve letters that change with the data: runs on an older version of a file are not counted."""
    digest = hashlib.sha256(repr(table.levels).encode())
    for array in (table.numbers, table.words, table.anomaly):
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:12]


def summarise(rows: list[dict], chosen: dict[str, Settings]) -> list[dict]:
    """Mean and standard deviation (n − 1, None of one run) of every metric, one entry for each model."""
    summaries = []
    for model in chosen:
        own = [row for row in rows if row["model"] == model]
        entry = {"model": model, "runs": len(own), "seconds": float(np.mean([row["seconds"] for row in own]))}
        for metric in METRICS:
            values = np.array([row[metric] for row in own])
            spread = float(values.std(ddof=1)) if len(values) > 1 else None
            entry |= {metric: float(values.mean()), f"{metric}_std": spread}
        summaries.append(entry)
    return summaries


def with_spread(entry: dict, metric: str) -> str:
    """Mean ± standard deviation; of a single run there is none."""
    spread = entry[f"{metric}_std"]
    return f"{entry[metric]:.4f}" + ("" if spread is None else f" ± {spread:.4f}")


def markdown(summaries: list[dict]) -> str:
    """The table of the summaries."""
    heads = ["model", "precision", "recall", "F1", "ROC-AUC", "average precision", "runs", "seconds per run"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for entry in summaries:
        cells = [with_spread(entry, metric) for metric in METRICS]
        cells = [TITLES[entry["model"]], *cells, str(entry["runs"]), f"{entry['seconds']:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    args = parse_arguments()
    chosen = choose_settings(args)
    table = tabular.load(args.dataset, args.data_path, args.drop_constant)
    seeds = list(range(args.seed, args.seed + args.runs))
    check_halves(table, seeds, chosen)
    gpu = devices.choose(args.gpu).type != "cpu"

    name = args.dataset if args.dataset in tabular.DATASETS else Path(args.dataset).name.replace(".", "-")
    folder = Path(args.save_path) / name / "anomaly"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "runs.jsonl"
    data = fingerprint(table)
    tasks = [(model, settings, seed, gpu) for seed in seeds for model, settings in chosen.items()]
    rows = []
    for row in read_rows(path):
        same = row["data"] == data and row["seed"] in seeds and row["settings"] == chosen.get(row["model"])
        if same and not any((row["model"], row["seed"]) == (other["model"], other["seed"]) for other in rows):
            rows.append(row)
    done = {(row["model"], row["seed"]) for row in rows}
    missing = [task for task in tasks if (task[0], task[2]) not in done]
    share = table.anomaly.mean()
    print(
        f"{name}: {len(table):,} rows, {share:.2%} anomalies; {len(tasks)} runs, {len(missing)} to do, {args.jobs} at "
        f"a time; {path}",
        flush=True,
    )
    for row in run_all(table, missing, args.jobs):
        row |= {"settings": chosen[row["model"]], "data": data}
        append_row(path, row)
        rows.append(row)
        print(
            f"{row['model']:17} seed {row['seed']:3}  F1 {row['f1']:.4f}  ROC-AUC {row['roc_auc']:.4f}  "
            f"{row['seconds']:.1f} s  ({len(rows)}/{len(tasks)})",
            flush=True,
        )

    rows.sort(key=lambda row: (row["seed"], args.models.index(row["model"])))
    summaries = summarise(rows, chosen)
    report = markdown(summaries)
    with files.replacing(folder / "anomaly.md") as temporary:
        temporary.write_text(report)
    files.write_json(
        folder / "anomaly.json",
        {
            "dataset": args.dataset,
            "rows": len(table),
            "anomaly_ratio": float(share),
            "summary": summaries,
            "runs": rows,
        },
    )
    print(report)
    best = max(summaries, key=lambda entry: entry["f1"])
    print(
        f"{name}: best F1 {with_spread(best, 'f1')} by {TITLES[best['model']]}, {best['runs']} "
        f"run{'s' * (best['runs'] > 1)}; table in {folder / 'anomaly.md'}"
    )


if __name__ == "__main__":
    cli.run(main)

"""Seeds × models on vectors: training a density model, worker processes, and the file of finished runs."""

import argparse
import json
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import models
from data.base import VectorDataset
from experiments.anomaly_presets import TRAINING, Settings
from experiments.columns import plausible
from models.base import Autoencoder, DensityModel
from utils import cli, files, loop
from utils.errors import Diverged, UserError
from utils.provenance import provenance

TITLES = {"radogaga-d": "RaDOGAGA, h(d) = d", "radogaga-log": "RaDOGAGA, h(d) = log d", "dagmm": "DAGMM"}


def add_flags(group: argparse._ArgumentGroup, runs: int) -> None:
    """How many runs, and how many at a time."""
    group.add_argument("--runs", type=cli.positive, default=runs, metavar="R", help="runs of each model, a seed each")
    group.add_argument("--seed", type=cli.seed, default=0, help="of the first run; the next has the next number")
    group.add_argument("--jobs", type=cli.positive, default=os.cpu_count(), metavar="J", help="processes side by side")
    group.add_argument("--gpu", action="store_true", help="compute on the first CUDA device; without one, on the CPU")


def build(settings: Settings, width: int) -> DensityModel:
    """A density model of vectors of ``width`` numbers; ``settings`` as for ``train``."""
    config = {key: value for key, value in settings.items() if key not in ("model", "mixture", *TRAINING)}
    model = models.build(settings["model"], channels=width, **config)
    assert isinstance(model, DensityModel)
    return model


def train(
    run: str, rows: Tensor, settings: Settings, seed: int, device: torch.device, anneal: bool = False
) -> DensityModel:
    """Train a density model on vectors ``(N, D)``; in evaluation mode, its mixture fixed to that of all of them.

    Args:
        run: what messages call it. Raises Diverged where its loss is no finite number any more.
        settings: "model", "mixture" ("em" fixes it by expectation-maximisation after training, not by the estimation
            network), ``TRAINING``, and arguments of ``models.build``.
        anneal: let the learning rate fall to 0 as a cosine.
    """
    torch.manual_seed(seed)
    model = build(settings, rows.shape[1]).to(device)
    dataset = VectorDataset(rows.to(device))
    fit(run, model, dataset, seed, settings["epochs"], settings["batch_size"], settings["lr"], anneal=anneal)
    model.fit_prior(dataset.batches(4096, device=device), em=settings["mixture"] == "em", seed=seed)
    return model


@torch.no_grad()
def energies(model: DensityModel, rows: Tensor, device: torch.device) -> np.ndarray:
    """The energies in nats ``(N,)``, −log of the density, of vectors ``(N, D)``."""
    return torch.cat([model.energy(x).cpu() for x in VectorDataset(rows).batches(4096, device)]).numpy()


def fit(
    run: str,
    model: Autoencoder,
    dataset: VectorDataset,
    seed: int,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float = 0.0,
    anneal: bool = False,
) -> None:
    """Train a model, then in evaluation mode; ``run`` and ``anneal`` as for ``train``. Raises Diverged."""
    model.train_size = len(dataset)
    optimizer = loop.make_optimizer(model, lr, weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs) if anneal else None
    step = loop.Step(model, optimizer, dataset, eager=True)  # a captured step would keep its learning rate, a number
    for epoch in range(1, epochs + 1):
        *_, totals = loop.epoch(step, batch_size, seed, epoch)
        if not math.isfinite(totals.means()["loss"]):
            raise Diverged(f"{run}: the training diverged in epoch {epoch} ({totals.means()}); try a lower --lr")
        if schedule is not None:
            schedule.step()
    model.eval()


def require_scores(run: str, scores: np.ndarray) -> np.ndarray:
    """The scores of a run. Raises Diverged where some are not finite, or all are the same."""
    wrong = int((~np.isfinite(scores)).sum())
    if wrong or np.ptp(scores) == 0:
        found = f"{wrong} scores are not finite" if wrong else "every row has the same score"
        raise Diverged(f"{run}: {found}; try a lower --lr")
    return scores


worker = argparse.Namespace(data=None)  # of a worker process


def start_worker(shared: object) -> None:
    """What a worker process does first: keep the data, compute on one core, and end with its parent."""
    worker.data = shared
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent tells us

    def watch(parent: multiprocessing.Process) -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, args=(multiprocessing.parent_process(),), daemon=True).start()


def work(compute: Callable, task: tuple) -> object:
    return compute(worker.data, *task)


def run_all(compute: Callable, shared: object, tasks: Sequence[tuple], jobs: int) -> Iterator:
    """The results of ``compute(shared, *task)``, each as soon as it is finished. Every task computes on one core.

    ``compute`` is a function of a module: a worker process finds it by its name. One job is this process.
    """
    jobs = min(jobs, len(tasks))
    if jobs <= 1:
        torch.set_num_threads(1)  # the same sums, in the same order, as in a worker
        yield from (compute(shared, *task) for task in tasks)
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # scikit-learn's and BLAS's threads, read when a process starts
    # One server imports PyTorch and scikit-learn, and every worker is forked from it; Windows has no such server.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload([__name__, "sklearn.ensemble", "sklearn.svm"])
    with ProcessPoolExecutor(jobs, context, start_worker, (shared,)) as pool:
        try:
            for future in as_completed([pool.submit(work, compute, task) for task in tasks]):
                yield future.result()
        except BrokenProcessPool as error:
            advice = "finished runs are kept, the same command with a lower --jobs goes on"
            raise UserError(f"--jobs {jobs}: a process was killed, most likely for lack of memory; {advice}") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def run_provenance(gpu: bool, seed: int) -> dict:
    """The provenance of a run: each computes on one core, wherever it runs."""
    return provenance(torch.device("cuda" if gpu and torch.cuda.is_available() else "cpu"), seed, threads=1)


def append_row(path: Path, row: dict) -> None:
    """A finished run, on the disk when this returns."""
    with files.named_errors(path), open(path, "a") as stream:
        stream.write(json.dumps(row) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    files.written.append(path)


def finished(
    path: Path, keys: set[str], data: str, chosen: dict[str, dict], seeds: Sequence[int]
) -> dict[tuple[str, int], dict]:
    """The rows of a file, by model and seed, that have all of the keys, this data and the chosen settings.

    A last line that a killed process left unfinished is cut off. Raises UserError for a damaged line elsewhere.
    """
    found: dict[tuple[str, int], dict] = {}
    try:
        *complete, rest = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
        if rest:
            files.write_text(path, "".join(line + "\n" for line in complete))
        for number, row in enumerate(map(json.loads, complete), 1):
            if not isinstance(row, dict):
                raise ValueError(f"row {number} is {row!r}")
            if not keys | {"model", "seed", "settings", "data"} <= row.keys():
                continue  # another version wrote it
            if wrong := [key for key in keys if not plausible(key, row[key])]:
                raise ValueError(f"row {number}: {wrong[0]} is {row[wrong[0]]!r}")
            if row["data"] == data and row["seed"] in seeds and row["settings"] == chosen.get(row["model"]):
                found.setdefault((row["model"], row["seed"]), row)
    except ValueError as error:  # of UTF-8 and JSON too
        raise UserError(f"{path}: damaged ({error}); move it away to start afresh") from error
    return found

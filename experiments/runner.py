"""The runner of ``reproduce.py``: trainings and evaluations in processes of their own, each result in its own file."""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

import torch
from tqdm import tqdm

from experiments import run
from experiments.plan import Group, Plan, Task, Training, configuration, hash_of
from experiments.results import read_cell
from utils import checkpoint, files
from utils.errors import UserError
from utils.provenance import provenance

ROOT = Path(__file__).resolve().parent.parent


class Failed(Exception):
    """A script ended with another exit status than 0; the message is its last line on standard error."""


def trained_before(folder: Path, groups: list[Group]) -> dict[tuple[str, str], str]:
    """Names of finished checkpoints by data set and hash of their configuration, whatever trained them."""
    found = {}
    names = {group.name for group in groups}
    for dataset in {group.training.run.dataset for group in groups if group.training}:
        own = checkpoint.available(folder / dataset, groups=False)
        for name in checkpoint.available(folder / dataset):
            if name in own or name in names:  # others, maybe hundreds, name another configuration
                with suppress(UserError):
                    saved = run.read(folder / dataset / name)
                    if saved.step == 0:
                        found[dataset, hash_of(configuration(saved.config, saved.epoch))] = name
    return found


class Runner:
    """Runs groups, ``--jobs`` of them at a time; ``failures``: messages by task key or, of a training, group name."""

    def __init__(self, plan: Plan, args: argparse.Namespace):
        self.args, self.groups = args, list(plan.groups.values())
        self.folder = Path(args.save_path) / "reproduce"
        self.cells = self.folder / "cells"
        threads = os.environ.get("OMP_NUM_THREADS", "")
        self.threads = int(threads) if threads.isdecimal() else max(1, (os.cpu_count() or 1) // args.jobs)
        self.children: set[subprocess.Popen] = set()
        self.stopping = threading.Event()
        self.failures: dict[str, str] = {}
        self.trained = trained_before(Path(args.checkpoint), self.groups)

    def missing(self, group: Group) -> list[Task]:
        """The tasks without a cell. A damaged file counts as none."""
        return [task for key, task in group.tasks.items() if read_cell(self.cells / f"{key}.json") is None]

    def checkpoint_of(self, group: Group, training: Training) -> tuple[Path, bool]:
        """The group's checkpoint, or an equal one that was finished when this process began, and whether it is that."""
        earlier = self.trained.get((training.run.dataset, training.key))
        path = checkpoint.path_of(self.args.checkpoint, training.run.dataset, earlier or group.name)
        return path, earlier is not None

    def finished_epochs(self, group: Group, training: Training) -> int:
        """Epochs of the training that a checkpoint holds."""
        try:
            return run.read(self.checkpoint_of(group, training)[0]).epoch
        except UserError:
            return 0

    def run_all(self) -> None:
        """Run every group. A signal that ends this process ends the scripts too; what they saved is kept."""
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        with ThreadPoolExecutor(self.args.jobs) as pool:
            try:
                futures = [pool.submit(self.run_group, group) for group in self.groups]
                for future in tqdm(as_completed(futures), total=len(futures), desc="groups", disable=None):
                    future.result()
            except BaseException:
                self.stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                for child in list(self.children):
                    child.terminate()
                print("interrupted: the same command continues where it stopped", file=sys.stderr)
                raise

    def run_group(self, group: Group) -> None:
        """Train, then evaluate what is missing; a failure is recorded and stops no other group."""
        if not self.missing(group):
            return
        try:
            # The scripts inherit the lock: if this process is killed and they live on, the next call waits for them.
            with files.locked(self.folder / "locks" / group.name, self.check_stopping) as lock:
                tasks = self.missing(group)
                if tasks and group.training:
                    path, finished = self.checkpoint_of(group, group.training)
                    command = [*group.training.command, "--model-name", path.name, "--checkpoint", self.args.checkpoint]
                    if not finished:
                        self.call([*command, "--resume"] if path.exists() else command, group.name, lock)
                for task in tasks:
                    try:
                        self.evaluate(group, task, lock)
                    except Failed as reason:
                        self.failures[task.key] = str(reason)
        except Failed as reason:
            self.failures[group.name] = str(reason)

    def check_stopping(self) -> None:
        if self.stopping.is_set():
            raise Failed("interrupted")

    def evaluate(self, group: Group, task: Task, lock: int) -> None:
        """Call the script of a task and keep its metrics with everything that tells where they come from."""
        work = self.folder / "work" / task.key
        command = [*task.command, "--save-path", str(work)]
        if group.training:
            name = self.checkpoint_of(group, group.training)[0].name
            command += ["--model-name", name, "--checkpoint", self.args.checkpoint]
        started = time.monotonic()
        self.call(command, f"{task.key}-{Path(task.command[0]).stem}", lock)
        # An earlier call may have left the file of the same training under another name.
        newest = max(work.rglob("*.json"), key=lambda file: file.stat().st_mtime, default=None)
        if newest is None:
            raise Failed(f"{task.command[0]} wrote no result")
        content = json.loads(newest.read_text())
        row = content[-1] if isinstance(content, list) else content["runs"][-1]
        if task.features not in ("", "none") and task.features not in row["features"]:
            raise Failed(f"no {task.features} features; give --inception-weights FILE, or --features none")
        row |= row.get("factors", {})  # of singular.py, where they are known
        numbers = {key: value for key, value in row.items() if type(value) in (int, float)}  # no switches
        device = torch.device("cuda" if self.args.gpu and torch.cuda.is_available() else "cpu")
        precision = group.training.run.precision if group.training else "fp32"
        result = {
            "config": task.config,
            "command": command,
            "seconds": time.monotonic() - started,
            "training_command": group.training.command if group.training else [],
            "metrics": {task.rename.get(key, key): value for key, value in numbers.items()},
            "trained_by": row.get("trained_by", []),  # nothing where the script trains by itself
            "provenance": provenance(device, task.config["flags"]["--seed"], precision, self.threads),
        }
        files.write_json(self.cells / f"{task.key}.json", result)

    def call(self, command: list[str], name: str, lock: int) -> None:
        """A script in a process of its own, its output in logs/. Raises Failed."""
        self.check_stopping()
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        tqdm.write(f"{' '.join(command)}  (log: {logs / name}.log)")
        words = [sys.executable, str(ROOT / command[0]), *command[1:]]
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        with open(logs / f"{name}.log", "a") as out, open(logs / f"{name}.err", "w+") as err:
            with subprocess.Popen(words, stdout=out, stderr=err, env=environment, pass_fds=[lock]) as child:
                self.children.add(child)
                status = child.wait()
            self.children.discard(child)
            err.seek(0)
            reason = (err.read().strip() or "no message").splitlines()[-1]
        if status != 0:
            self.check_stopping()
            if status < 0:
                reason = f"killed by signal {-status} ({signal.Signals(-status).name})"
            tqdm.write(f"failed: {name}: {reason}")
            raise Failed(f"{reason} (status {status})")

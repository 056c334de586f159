"""Damaged inputs from a seeded generator, and what must come of each.

A case writes its files below a folder and gives the calls to make. ``must_refuse``: exit status 2 in one line.
Otherwise the input may be good still: ``harmless`` says, after success, whether what was read is what was written.
"""

import copy
import csv
import gzip
import io
import json
import math
import shutil
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.io
import torch
from faults.harness import call_here
from PIL import Image

Call = tuple  # a script's name and its arguments

EVALUATIONS = (
    ("singular",),
    ("generation", "--task", "mvg", "-X", 2, "-Y", 2, "-N", 40),
    ("evaluate", "--features", "none", "--test-size", 20),
    ("isometry", "--test-size", 20, "--num-pairs", 10, "--metric-codes", 2),
    ("classification", "--train-size", 20, "--epochs", 1),
)


@dataclass
class Case:
    kind: str
    name: str
    calls: list[Call]
    must_refuse: bool = False
    harmless: Callable[[], bool] = field(default=lambda: True)


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    """One bit changed."""
    damaged = bytearray(content)
    damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def mangle(content: bytes, rng: np.random.Generator) -> bytes:
    """A flipped bit, an end that is missing, bytes of zero, or bytes that were written twice."""
    place, length = int(rng.integers(len(content))), int(rng.integers(1, 64))
    ways = (
        lambda: flip(content, rng),
        lambda: content[:place],
        lambda: content[:place] + bytes(length) + content[place + length :],
        lambda: content[: place + length] + content[place:],
    )
    return ways[rng.integers(len(ways))]()


# --- checkpoints

SEMANTIC: dict[str, Callable[[dict], object]] = {
    "weights of another shape": lambda r: r["weights"].update({next(iter(r["weights"])): torch.zeros(3)}),
    "a weight is missing": lambda r: r["weights"].popitem(),
    "a weight too many": lambda r: r["weights"].update(extra=torch.zeros(2)),
    "weights of another dtype": lambda r: r["weights"].update(
        {key: value.double() for key, value in r["weights"].items()}
    ),
    "an infinite weight": lambda r: first(r["weights"]).flatten()[:1].fill_(math.inf),
    "a sparse weight": lambda r: r["weights"].update({next(iter(r["weights"])): torch.zeros(2, 2).to_sparse()}),
    "a weight that is text": lambda r: r["weights"].update({next(iter(r["weights"])): "0"}),
    "a moment of another shape": lambda r: r["optimizer"]["state"][0].update(exp_avg=torch.zeros(2)),
    "a moment of another dtype": lambda r: r["optimizer"]["state"][0].update(
        exp_avg_sq=r["optimizer"]["state"][0]["exp_avg_sq"].double()
    ),
    "an infinite second moment": lambda r: r["optimizer"]["state"][0]["exp_avg_sq"].flatten()[:1].fill_(math.inf),
    "a negative second moment": lambda r: r["optimizer"]["state"][0]["exp_avg_sq"].flatten()[:1].fill_(-1),
    "a moment that is not a number": lambda r: r["optimizer"]["state"][1]["exp_avg"].flatten()[:1].fill_(math.nan),
    "a moment too many": lambda r: r["optimizer"]["state"].update({99: r["optimizer"]["state"][0]}),
    "a moment is missing": lambda r: r["optimizer"]["state"].pop(0),
    "a key of a moment is missing": lambda r: r["optimizer"]["state"][0].pop("step"),
    "Adam's step is negative": lambda r: r["optimizer"]["state"][0].update(step=torch.tensor(-5.0)),
    "Adam's step has a shape": lambda r: r["optimizer"]["state"][0].update(step=torch.zeros(3)),
    "parameters in other groups": lambda r: r["optimizer"]["param_groups"][0].update(params=[0]),
    "no groups": lambda r: r["optimizer"].update(param_groups=[]),
    "an optimiser that is empty": lambda r: r.update(optimizer={}),
    "step beyond the epoch": lambda r: r.update(step=10**6),
    "a negative step": lambda r: r.update(step=-1),
    "step that is text": lambda r: r.update(step="1"),
    "epoch beyond the metrics": lambda r: r.update(epoch=7),
    "metrics of another epoch": lambda r: r["metrics"][0].update(epoch=5),
    "a metric that is text": lambda r: r["metrics"][0].update(train_loss="0.1"),
    "a metric that is not a number": lambda r: r["metrics"][0].update(train_loss=math.nan),
    "metrics without seconds": lambda r: r["metrics"][0].pop("seconds"),
    "running sums that are infinite": lambda r: r.update(running={"sums": {"loss": math.inf}, "count": 0}),
    "running count beyond the step": lambda r: r.update(running={"sums": {}, "count": 1000}),
    "running without count": lambda r: r.update(running={"sums": {}}),
    "random state of another size": lambda r: r["random"].update(cpu=torch.zeros(3, dtype=torch.uint8)),
    "random state of floats": lambda r: r["random"].update(cpu=torch.zeros(5056)),
    "random state of ones": lambda r: r["random"].update(cpu=torch.full((5056,), 255, dtype=torch.uint8)),
    "random state of a GPU that is text": lambda r: r["random"].update(cuda="x"),
    'latent_dim "8"': lambda r: r["config"].update(latent_dim="8"),
    "latent_dim -1": lambda r: r["config"].update(latent_dim=-1),
    "latent_dim 0": lambda r: r["config"].update(latent_dim=0),
    "latent_dim True": lambda r: r["config"].update(latent_dim=True),
    "latent_dim 5": lambda r: r["config"].update(latent_dim=5),
    "a batch of 0": lambda r: r["config"].update(batch_size=0),
    "a negative learning rate": lambda r: r["config"].update(lr=-1.0),
    "a learning rate that is not a number": lambda r: r["config"].update(lr=math.nan),
    "a seed of 2^40": lambda r: r["config"].update(seed=2**40),
    "another precision": lambda r: r["config"].update(precision="fp8"),
    "images of 31 pixels": lambda r: r["config"].update(image_size=31),
    "another architecture": lambda r: r["config"].update(architecture="image-mlp-64"),
    "another model": lambda r: r["config"].update(model="gan"),
    "an option that is text": lambda r: r["config"]["options"].update(beta="1"),
    "an unknown option": lambda r: r["config"]["options"].update(depth=3),
    "an unknown key of the configuration": lambda r: r["config"].update(depth=3),
    "a key of the configuration is missing": lambda r: r["config"].pop("model"),
    "an unknown part": lambda r: r.update(extra=1),
    "no weights": lambda r: r.pop("weights"),
    "no configuration": lambda r: r.pop("config"),
    "a format that is a tensor": lambda r: r.update(format=torch.ones(2)),
    "another format": lambda r: r.update(format=9),
}


def first(weights: dict) -> torch.Tensor:
    return next(value for value in weights.values() if value.is_floating_point())


def checkpoint_calls(folder: Path, which: int) -> list[Call]:
    common = ("--dataset", "digits", "--checkpoint", folder, "--model-name", "m")
    if which == 0:
        return [("train", *common, "--resume", "--epochs", 3)]
    return [(*EVALUATIONS[which - 1], *common, "--save-path", folder / "results")]


def semantic(folder: Path, good: Path, name: str, which: int) -> Case:
    """A checkpoint whose checksums are right and whose content is not."""
    record = torch.load(good, weights_only=True)
    SEMANTIC[name](record)
    (folder / "digits").mkdir(parents=True, exist_ok=True)
    torch.save(record, folder / "digits" / "m")
    return Case("checkpoint, content", name, checkpoint_calls(folder, which), must_refuse=True)


def same(first: object, second: object) -> bool:
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    return first == second


def checkpoint_bytes(folder: Path, good: Path, rng: np.random.Generator) -> Case:
    """Bytes of a checkpoint changed: harmless only where what the file holds is what it held."""
    content = good.read_bytes()
    damaged = mangle(content, rng)
    (folder / "digits").mkdir(parents=True, exist_ok=True)
    (folder / "digits" / "m").write_bytes(damaged)

    def harmless() -> bool:
        return same(torch.load(io.BytesIO(damaged), weights_only=True), torch.load(good, weights_only=True))

    return Case("checkpoint, bytes", "", checkpoint_calls(folder, int(rng.integers(6))), harmless=harmless)


ODD = (
    None,
    "8",
    -1,
    0,
    10**12,
    math.nan,
    math.inf,
    True,
    [],
    {},
    (),
    torch.zeros(2),
    torch.tensor(math.nan),
    b"x",
    0.5,
)


def replaced(folder: Path, good: Path, rng: np.random.Generator) -> Case:
    """Any part of a checkpoint replaced by something else, or removed, or added to."""
    record = torch.load(good, weights_only=True)
    parent, path = record, []
    while True:
        key = list(parent)[rng.integers(len(parent))] if isinstance(parent, dict) else int(rng.integers(len(parent)))
        path.append(str(key))
        child = parent[key]
        if not isinstance(child, dict | list) or not child or rng.random() < 0.2:
            break
        parent = child
    value = ODD[rng.integers(len(ODD))]
    if rng.random() < 0.15:
        del parent[key]
        value = "removed"
    elif rng.random() < 0.1 and isinstance(parent, dict):
        parent["odd"] = value
    else:
        parent[key] = value
    (folder / "digits").mkdir(parents=True, exist_ok=True)
    torch.save(record, folder / "digits" / "m")
    name = f"{'/'.join(path)} = {value!r}"
    return Case("checkpoint, any part", name, checkpoint_calls(folder, int(rng.integers(6))))


# --- tables


def table_files(rng: np.random.Generator) -> dict[str, bytes]:
    """The same labelled table in every format, odd MATLAB contents too."""
    values = rng.random((60, 4))
    anomaly = (rng.random(60) < 0.3).astype(float)
    anomaly[:4] = 0, 1, 0, 1
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["a", "b", "c", "d", "label"])
    writer.writerows([*(f"{v:.6f}" for v in row), int(y)] for row, y in zip(values, anomaly, strict=True))
    plain = text.getvalue().encode()
    files = {"t.csv": plain, "t.csv.gz": gzip.compress(plain, mtime=0)}
    for name, compress in (("plain.mat", False), ("packed.mat", True)):
        stream = io.BytesIO()
        scipy.io.savemat(stream, {"X": values, "y": anomaly[:, None]}, do_compression=compress)
        files[name] = stream.getvalue()
    words = np.array(["normal" if y == 0 else "odd" for y in anomaly], dtype=object)
    odd = {
        "sparse": {"X": scipy.sparse.csc_matrix(values), "y": anomaly},
        "cell": {"X": values, "y": words},
        "cells": {"X": np.array(values, dtype=object), "y": anomaly},
        "struct": {"X": {"a": values, "b": 1}, "y": anomaly},
        "text": {"X": "abc", "y": "de"},
        "complex": {"X": values * 1j, "y": anomaly},
        "three": {"X": rng.random((6, 5, 4)), "y": anomaly},
        "none": {"X": np.zeros((0, 4)), "y": np.zeros(0)},
    }
    for name, content in odd.items():
        stream = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scipy.io.savemat(stream, content)
        files[f"{name}.mat"] = stream.getvalue()
    stream = io.BytesIO()
    np.savez_compressed(stream, X=values, y=anomaly)
    files["t.npz"] = stream.getvalue()
    stream = io.BytesIO()
    np.savez(stream, X=np.array([None, {}], dtype=object), y=anomaly)
    files["pickle.npz"] = stream.getvalue()
    return files


def checked(name: str, content: bytes) -> bytes | None:
    """What a file holds by its own checksums; None where they do not fit. Plain text has none."""
    try:
        if name.endswith(".gz"):
            return gzip.decompress(content)
        if name.endswith(".npz"):
            with np.load(io.BytesIO(content)) as archive:
                return b"".join(archive[key].tobytes() for key in sorted(archive))
    except Exception:
        return None
    return b""


def table(folder: Path, rng: np.random.Generator) -> Case:
    files = table_files(np.random.default_rng(0))
    name = sorted(files)[rng.integers(len(files))]
    whole = rng.random() < 0.1
    damaged = files[name] if whole else mangle(files[name], rng)
    (folder / name).write_bytes(damaged)
    flags = ("--models", "one-class-svm", "--runs", 1, "--jobs", 1, "--save-path", folder / "results")
    harmless = lambda: checked(name, damaged) == checked(name, files[name])  # noqa: E731
    return Case("table", name, [("anomaly", "--dataset", folder / name, *flags)], harmless=harmless)


# --- images


def pictures(folder: Path, kind: str = "png") -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(12):
        Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(folder / f"{index}.{kind}")


def folder_flags(folder: Path) -> tuple:
    sizes = ("--image-size", 32, "--channels", 1, "-n", 2, "--model", "ae", "--arch", "mlp", "--epochs", 1)
    return ("--dataset", "folder", "--data-path", folder / "pictures", "--checkpoint", folder / "checkpoint", *sizes)


def picture(folder: Path, rng: np.random.Generator) -> Case:
    kind = ("png", "jpg", "bmp", "gif", "tif", "webp", "ppm")[rng.integers(7)]
    pictures(folder / "pictures", kind)
    file = folder / "pictures" / f"3.{kind}"
    file.write_bytes(mangle(file.read_bytes(), rng))
    more = ("--skip-corrupt",) if rng.random() < 0.5 else ()
    return Case("image", kind, [("train", *folder_flags(folder), *more)])


def idx_file(shape: tuple[int, ...], content: bytes) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + content


def idx(folder: Path, rng: np.random.Generator) -> Case:
    """MNIST's four files, one of them damaged, empty or with labels that are none."""
    values, packed = np.random.default_rng(0), rng.random() < 0.7
    names = []
    for kind in ("train", "t10k"):
        parts = {
            f"{kind}-images-idx3-ubyte": idx_file((20, 28, 28), values.bytes(20 * 784)),
            f"{kind}-labels-idx1-ubyte": idx_file((20,), bytes(np.arange(20, dtype=np.uint8) % 10)),
        }
        for name, content in parts.items():
            names.append(name + (".gz" if packed else ""))
            (folder / names[-1]).write_bytes(gzip.compress(content, mtime=0) if packed else content)
    file = folder / names[rng.integers(2)]  # of the training images, which are read first
    good = file.read_bytes()
    special = {
        "no images": idx_file((0, 28, 28), b""),
        "size 0": idx_file((20, 0, 28), b""),
        "labels": idx_file((20,), bytes(range(20))),
        "a bomb": idx_file((2**20, 2**10, 2**10), b""),
    }
    way = list(special)[rng.integers(len(special))] if rng.random() < 0.2 else "bytes"
    if way == "bytes":
        damaged = mangle(good, rng)
    else:
        file = folder / names[way == "labels"]
        damaged = gzip.compress(special[way]) if packed else special[way]
    file.write_bytes(damaged)
    flags = ("--dataset", "mnist", "--data-path", folder, "--checkpoint", folder / "checkpoint", "-n", 2, "--epochs", 1)
    harmless = lambda: checked(file.name, damaged) == checked(file.name, good)  # noqa: E731
    return Case("IDX", way, [("train", *flags, "--model", "ae", "--arch", "mlp")], way != "bytes", harmless)


# --- caches and results


def cache(folder: Path, good: Path, rng: np.random.Generator) -> Case:
    """The cache of decoded images of a folder: made again, to the same loss."""
    shutil.copytree(good, folder, dirs_exist_ok=True, copy_function=shutil.copy2)
    files = sorted((folder / "pictures" / ".cache").iterdir())
    file = files[rng.integers(len(files))]
    file.write_bytes(mangle(file.read_bytes(), rng) if rng.random() < 0.8 else bytes(file.stat().st_size))
    loss = losses(folder / "checkpoint")
    shutil.rmtree(folder / "checkpoint")
    harmless = lambda: losses(folder / "checkpoint") == loss  # noqa: E731
    return Case("cache of images", file.suffix, [("train", *folder_flags(folder))], harmless=harmless)


def losses(folder: Path) -> list[float]:
    return [row["train_loss"] for row in torch.load(folder / "folder" / "ae", weights_only=True)["metrics"]]


def results(folder: Path, good: Path, rng: np.random.Generator) -> Case:
    """Finished runs of anomaly.py, or runs of classification.py, damaged: refused, or the numbers are of the run."""
    shutil.copytree(good, folder, dirs_exist_ok=True)
    path = folder / "results" / "t-csv" / "anomaly" / "runs.jsonl"
    original = path.read_bytes()
    ways = ({"f1": math.nan}, {"f1": "0.9"}, {"roc_auc": 7}, {"seed": "0"}, {"recall": True}, {"seconds": None})
    if rng.random() < 0.4:
        row = json.loads(original.splitlines()[0]) | copy.deepcopy(ways[rng.integers(len(ways))])
        path.write_text(json.dumps(row) + "\n")
    else:
        path.write_bytes(mangle(original, rng))
    flags = ("--models", "one-class-svm", "--runs", 1, "--jobs", 1, "--save-path", folder / "results")

    def harmless() -> bool:
        found = json.loads((folder / "results" / "t-csv" / "anomaly" / "anomaly.json").read_text())["runs"]
        return all(0 <= run[key] <= 1 for run in found for key in ("f1", "recall", "precision", "roc_auc"))

    return Case("results", "runs.jsonl", [("anomaly", "--dataset", folder / "t.csv", *flags)], harmless=harmless)


def events(folder: Path, good: Path, rng: np.random.Generator) -> Case:
    """TensorBoard's files of a finished run: its curves are written again."""
    from experiments.logs import Logs

    shutil.copytree(good, folder, dirs_exist_ok=True)
    expected = Logs(folder / "digits" / "m").scalars()
    files = sorted((folder / "digits" / "tensorboard" / "m").iterdir())
    file = files[rng.integers(len(files))]
    file.write_bytes(mangle(file.read_bytes(), rng))
    flags = ("--dataset", "digits", "--checkpoint", folder, "--model-name", "m", "--resume")
    harmless = lambda: Logs(folder / "digits" / "m").scalars() == expected  # noqa: E731
    return Case("TensorBoard", "", [("train", *flags)], harmless=harmless)


def make_good(folder: Path) -> dict[str, Path]:
    """What is damaged: a checkpoint with its curves, a folder of pictures with its cache, a table with its runs."""
    places = {name: folder / name for name in ("trained", "pictures", "table")}
    small = ("--arch", "mlp", "-n", 3, "--train-size", 40, "--valid-size", 20, "--batch-size", 16)
    common = ("--dataset", "digits", "--checkpoint", places["trained"], "--model-name", "m")
    call_here("train", "--vae", *common, *small, "--epochs", 1)
    call_here("train", *common, "--epochs", 2, "--resume")
    for script, *flags in EVALUATIONS:
        call_here(script, *flags, *common, "--save-path", folder / "results")
    pictures(places["pictures"] / "pictures")
    call_here("train", *folder_flags(places["pictures"]))
    places["table"].mkdir()
    (places["table"] / "t.csv").write_bytes(table_files(np.random.default_rng(0))["t.csv"])
    flags = ("--models", "one-class-svm", "--runs", 1, "--jobs", 1, "--save-path", places["table"] / "results")
    call_here("anomaly", "--dataset", places["table"] / "t.csv", *flags)
    call_here("density", "--models", "pca-gmm", "--runs", 1, "--size", 50, "--save-path", folder / "results")
    return places


def cases(folder: Path, good: dict[str, Path], number: int, seed: int) -> Iterator[Case]:
    """``number`` cases, after each of which the folder is emptied; every fault of ``SEMANTIC`` where there is room."""
    rng = np.random.default_rng(seed)
    file = good["trained"] / "digits" / "m"
    makers = {
        lambda: checkpoint_bytes(folder, file, rng): 0.18,
        lambda: replaced(folder, file, rng): 0.2,
        lambda: semantic(folder, file, list(SEMANTIC)[rng.integers(len(SEMANTIC))], int(rng.integers(6))): 0.18,
        lambda: table(folder, rng): 0.2,
        lambda: picture(folder, rng): 0.06,
        lambda: idx(folder, rng): 0.06,
        lambda: cache(folder, good["pictures"], rng): 0.04,
        lambda: results(folder, good["table"], rng): 0.05,
        lambda: events(folder, good["trained"], rng): 0.03,
    }
    for maker in rng.choice(list(makers), number, p=list(makers.values())):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield maker()

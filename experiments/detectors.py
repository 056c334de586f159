"""A trained detector of anomalies with its columns and scaling: fitted, saved, and applied to rows of any table."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data.base import VectorDataset
from data.table import Scaler, Table, as_table, from_ranges, halves, ranges
from data.table_columns import shown
from data.table_files import read_frame
from experiments import seeded_runs
from experiments.anomaly_presets import Settings
from models.base import DensityModel
from utils import checkpoint, files, plots
from utils.errors import UserError

EXPLAINED, NAMED = 20, 3  # strangest rows whose columns are named, and how many columns


@dataclass
class Detector:
    """Scores rows of tables, higher the stranger."""

    model: Any  # DensityModel in evaluation mode on the device, or an estimator of scikit-learn
    scale: Scaler
    device: torch.device
    about: dict  # its file: plain values and tensors

    def scores(self, table: Table) -> np.ndarray:
        """``(N,)``: energies in nats, or scikit-learn's scores with their sign turned."""
        x = self.scale(table)
        if isinstance(self.model, DensityModel):
            return seeded_runs.energies(self.model, x, self.device)
        return -self.model.score_samples(x.numpy())

    @torch.no_grad()
    def residuals(self, x: Tensor) -> Tensor:
        """``(N, D)``: what the network does not reconstruct of vectors; without a network the vectors themselves."""
        if not isinstance(self.model, DensityModel):
            return x
        return torch.cat([(part - self.model(part)).cpu() for part in VectorDataset(x).batches(4096, self.device)])

    def columns(self, table: Table) -> list[str]:
        """Of each row the columns with the largest residuals, in standard deviations of those of the training rows."""
        names = list(self.about["ranges"])
        sizes = [len(values) if isinstance(values[0], str) else 1 for values in self.about["ranges"].values()]
        values = (self.residuals(self.scale(table)) - self.about["mean"]).abs() / self.about["deviation"]
        largest = torch.stack([block.amax(dim=1) for block in values.split(sizes, dim=1)], dim=1)
        order = largest.argsort(dim=1, descending=True)[:, :NAMED].tolist()
        return [", ".join(f"{names[k]} ({row[k]:.1f})" for k in top) for row, top in zip(largest, order, strict=True)]

    def table(self, table: Table, name: str = "") -> pd.DataFrame:
        """``(N, 3)``: score, rank from 1, the strangest, and columns of the strangest rows."""
        scores = self.scores(table)
        ranks = pd.Series(-scores).rank(method="min").astype(int)
        top = np.argsort(-scores, kind="stable")[:EXPLAINED]
        columns = pd.Series("", index=ranks.index)
        columns[top] = self.columns(table.rows(top))
        return pd.DataFrame({f"{name}score": scores, f"{name}rank": ranks, f"{name}columns": columns})


def estimator(rows: Tensor, settings: Settings, seed: int) -> Any:
    """scikit-learn's estimator of these settings, fitted to vectors ``(N, D)``."""
    from sklearn.ensemble import IsolationForest
    from sklearn.svm import OneClassSVM

    if settings["model"] == "isolation-forest":
        return IsolationForest(n_estimators=settings["n_estimators"], random_state=seed).fit(rows.numpy())
    return OneClassSVM(nu=settings["nu"]).fit(rows.numpy())


def fit(run: str, train: Table, settings: Settings, seed: int, device: torch.device) -> Detector:
    """Train on the normal rows of a table, scaled as all of its rows have it. ``run``: what messages call it."""
    scale = Scaler(train)
    about: dict = {"settings": settings, "seed": seed, "ranges": ranges(train), "header": train.header}
    about["unused"] = [train.label, *(name for names in train.left_out.values() for name in names)]
    normal = scale(train.rows(np.flatnonzero(~train.anomaly)))
    if "epochs" in settings:
        model = seeded_runs.train(run, normal, settings, seed, device)
        about["weights"] = model.state_dict()
    else:  # saved as the rows that it is fitted to: scikit-learn's own files run code when they are read
        if "train_size" in settings:  # the cost grows with the square of the samples
            normal = normal[np.random.default_rng(seed).permutation(len(normal))[: settings["train_size"]]]
        about["rows"], model = normal, estimator(normal, settings, seed)
    detector = Detector(model, scale, device, about)
    residuals = detector.residuals(normal)
    about |= {"mean": residuals.mean(dim=0), "deviation": residuals.std(dim=0, correction=0).clamp(min=1e-6)}
    return detector


def save(path: Path, detector: Detector, data: str) -> None:
    checkpoint.save(path, detector.about | {"data": data})


def is_kept(path: Path, settings: Settings, seed: int, data: str) -> bool:
    """Whether a file holds the detector of these settings, seed and table."""
    try:
        about = checkpoint.read_tensors(path)
        return (about["settings"], about["seed"], about["data"]) == (settings, seed, data)
    except Exception:  # none there, or damaged: it is made again
        return False


def load(path: Path, device: torch.device) -> Detector:
    """A saved detector. Raises UserError for any other file, and for a damaged one."""
    expected = "expected a model that anomaly.py saved, results/<dataset>/anomaly/*.pt"
    try:
        about = checkpoint.read_tensors(path)
        settings, known = about["settings"], about["ranges"]
        if "rows" in about:
            model = estimator(about["rows"], settings, about["seed"])
        else:
            model = seeded_runs.build(settings, len(about["mean"])).to(device).eval()
            model.load_state_dict(about["weights"])
        return Detector(model, Scaler(from_ranges(known)), device, about)
    except OSError as error:
        raise UserError(f"--model {path}: {error.strerror}: {expected}") from error
    except Exception as error:  # damaged, or made by something else
        raise UserError(f"--model {path}: damaged, or not a model: {expected}") from error


def read_rows(path: Path, about: dict, ignore: list[str]) -> Table:
    """The rows of a file by the columns of a saved detector. Raises UserError where it has others."""
    known, unused = about["ranges"], {*ignore, *about["unused"]}
    words = [name for name, values in known.items() if isinstance(values[0], str)]
    frame, _ = read_frame(path, [*unused, *words], about["header"])
    missing, others = [name for name in known if name not in frame], [*set(map(str, frame)) - {*known, *unused}]
    if missing or others:
        found = f"missing: {shown(missing) or 'none'}; unknown: {shown(sorted(others)) or 'none'} (leave out: --ignore)"
        raise UserError(f"{path}: expected the columns of the model, {shown(list(known))}; {found}")
    table = as_table(frame[list(known)], about["header"], path, "none", published=True)
    if wrong := {*table.words} - {*words}:
        raise UserError(f"{path}: column {wrong.pop()}: expected numbers as in the model's table, found words")
    return replace(table, keys=frame[[name for name in frame if name in unused]])


def write_scores(path: Path, table: Table, trained: dict[str, Detector], seed: int | None = None) -> pd.DataFrame:
    """Every row's score, rank and columns by each detector as CSV, in the order of the table; the strangest printed.

    ``seed``: of the halves of the detectors' own table.
    """
    frame = pd.DataFrame({"row": np.arange(1, len(table) + 1)}).join(table.keys)
    if table.labelled and seed is not None:
        test = np.isin(np.arange(len(table)), halves(table, seed)[1])
        frame = frame.assign(half=np.where(test, "test", "training"), anomaly=table.anomaly.astype(int))
    for name, detector in trained.items():
        found = detector.table(table, f"{name} " if len(trained) > 1 else "")
        frame = frame.join(found)
        top = found.sort_values(found.columns[1], kind="stable").iloc[:3, 2]
        print(f"{name}, strangest rows: {'; '.join(f'{index + 1}: {columns}' for index, columns in top.items())}")
    files.write_text(path, frame.to_csv(index=False))
    print(f"scores of {len(table):,} rows, higher the stranger: {path}")
    return frame


def curves(scores: pd.DataFrame, anomaly: np.ndarray, titles: dict[str, str]) -> "plots.Figure":
    """ROC and precision-recall curves of the models named in ``titles`` by their columns of ``write_scores``."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    figure, (axes,) = plots.subplots(1, 2, size=(7.2, 4.0))
    for model, title in titles.items():
        own = scores[f"{model} score" if len(titles) > 1 else "score"]
        axes[0].plot(*roc_curve(anomaly, own)[:2], label=title)
        precision, recall, _ = precision_recall_curve(anomaly, own)
        steps = [*precision[:-1], precision[-2]]  # the last one is 1 by convention, at a recall no threshold reaches
        axes[1].plot(recall, steps, drawstyle="steps-post")  # the area below is the average precision
    axes[0].plot([0, 1], [0, 1], ":", color="grey", label="chance")
    axes[1].axhline(anomaly.mean(), linestyle=":", color="grey")
    axes[0].set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    axes[1].set(xlabel="recall", ylabel="precision", title="precision and recall", ylim=(0, 1.03))
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    return figure

"""The columns of ``evaluate.py``: names of the metrics in files, their titles in tables, and how they are printed."""

import math
from dataclasses import dataclass

SHARES = ("accuracy", "precision", "recall", "f1", "roc_auc")
FACTORS = ("x", "y", "size", "red", "green", "blue", "red - green", "red + green - 2 blue", "circle or square")
CORRELATIONS = ("pearson", "spearman", "isometry", "ssim")
SAMPLERS = {
    "prior": "the model's own prior",
    "mvg": "a Gaussian fitted to the training codes",
    "gmm": "a mixture of -d Gaussians fitted to the training codes",
}


@dataclass(frozen=True)
class Column:
    title: str
    form: str = ".3f"

    def text(self, value: float | None) -> str:
        """A value as it is printed; a dash where the model has no such metric."""
        return "–" if value is None else format(value, self.form)


def distance_columns(suffix: str) -> dict[str, Column]:
    """Columns of the distances by one kind of features, whose suffix ("" or "_cls") is part of every name."""
    sources = (*SAMPLERS, "reconstruction", "interpolation")
    fid = {f"fid{suffix}_{source}": Column(f"FID{suffix} {source}", ".2f") for source in sources}
    return fid | {f"kid{suffix}_{source}": Column(f"KID{suffix} {source}", ".4f") for source in SAMPLERS}


COLUMNS = {
    "mse": Column("MSE", ".5f"),
    "ssim": Column("SSIM", ".4f"),
    **distance_columns(""),
    **distance_columns("_cls"),
    "rank": Column("rank", "d"),
    "effective_rank": Column("effective rank", ".2f"),
    "isometry": Column("isometry r"),
    "parameters": Column("parameters", ",d"),
    "epochs": Column("epochs", "d"),
    "training_seconds": Column("training, s", ".0f"),
}

# Metrics of the other scripts, which the tables of reproduce.py show.
OTHER_COLUMNS = {
    "isometry_released": Column("r, released pairs"),
    "isometry_uniform": Column("r, uniform pairs"),
    "isometry_released_rescaled": Column("r, released, rescaled"),
    "isometry_uniform_rescaled": Column("r, uniform, rescaled"),
    "isometry_ssim_released": Column("r, released, 1 − SSIM"),
    "isometry_ssim_uniform": Column("r, uniform, 1 − SSIM"),
    "metric_variation": Column("variation of the metric"),
    "pearson": Column("Pearson r", ".4f"),
    "spearman": Column("Spearman ρ", ".4f"),
    "precision": Column("precision"),
    "recall": Column("recall"),
    "f1": Column("F1"),
    "roc_auc": Column("ROC-AUC"),
    **{name: Column(f"R² of {name}", ".2f") for name in FACTORS},
    "circle or square, accuracy": Column("its accuracy", ".2f"),
}


def column_of(metric: str) -> Column:
    """The column of a metric of any script; ``accuracy_100`` is that of classification.py with 100 labels."""
    if metric.startswith("accuracy_"):
        return Column(f"{int(metric.removeprefix('accuracy_')):,} labels", ".4f")
    return COLUMNS.get(metric) or OTHER_COLUMNS[metric]


def plausible(metric: str, value: object) -> bool:
    """Whether a value read from a file can be that of a metric: a finite number, of a share from 0 to 1."""
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        return False
    if metric.endswith(SHARES) or metric.startswith("accuracy_"):
        return 0 <= value <= 1  # type: ignore[operator]
    return abs(value) <= 1 + 1e-6 or not metric.startswith(CORRELATIONS)  # type: ignore[arg-type]

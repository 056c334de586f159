"""The published tables as data: which models they compare, which numbers they show, and what was published.

``reproduce.py`` runs them and ``report.py`` writes them down.
"""

from dataclasses import dataclass, field

import models
from experiments.presets import PRESETS

FULL_EPOCHS = 100  # of train.py at the full budget; --epochs E scales every other number of epochs by E / 100
PRESET_FLAGS = ("model", "h", "lambda1", "lambda2", "noise_width")
LABELS = (10, 100, 1000, 10_000)  # of the classification table


@dataclass(frozen=True)
class Cell:
    """One call of a script, and the metrics it gives to its row.

    Attributes:
        script: that is called.
        flags: its flags, but for those of files, data and seed.
        epochs: its own ``--epochs`` at the full budget, where that is to be scaled with the budget.
        least_epochs: how far down it is scaled.
        rename: metrics of the script under other names: the same script fills several columns of a row.
    """

    script: str = "evaluate.py"
    flags: dict[str, object] = field(default_factory=dict)
    epochs: int | None = None
    least_epochs: int = 1
    rename: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        label: its name; ``published`` refers to it.
        train: flags of train.py; None where nothing is trained before the cells.
        series, x: its curve and position in the figure; without x the figure has bars.
    """

    label: str
    train: dict[str, object] | None
    cells: tuple[Cell, ...] = (Cell(),)
    series: str = ""
    x: float | None = None


@dataclass(frozen=True)
class Table:
    """A published table.

    Attributes:
        dataset: of the publication; ``--dataset`` asks for another. None: the rows say.
        columns: metrics of evaluate.py, or of the cells; ``fid_``, ``kid_`` stand for the chosen features.
        figure: the columns that are drawn.
        published: metric to row label to number, all from the IRMAE paper's supplement unless the title says otherwise.
        claims: ("falls" or "rises", metric): along the rows with x; ("inside", metric): best neither first nor last.
        published_train: flags of train.py that only the publication's data set takes.
        positions: of the figure's columns along ``axis``, where a row is a curve through all of them.
    """

    title: str
    dataset: str | None
    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    figure: tuple[str, ...]
    axis: str = ""
    published: dict[str, dict[str, float]] = field(default_factory=dict)
    claims: tuple[tuple[str, str], ...] = ()
    published_train: dict[str, object] = field(default_factory=dict)
    positions: tuple[float, ...] = ()


def irmae(layers: int, **flags: object) -> dict[str, object]:
    """Flags of IRMAE with l layers; of the plain autoencoder for 0."""
    return ({"--model": "irmae", "-l": layers} if layers else {"--model": "ae"}) | flags


def as_preset(name: str) -> dict[str, object]:
    """The model and its weights of a preset of train.py; networks, rate and budget are the table's."""
    return {f"--{key.replace('_', '-')}": value for key, value in PRESETS[name].flags.items() if key in PRESET_FLAGS}


def numbers(labels: list[str], values: list[float]) -> dict[str, float]:
    return dict(zip(labels, values, strict=True))


IMAGES = ("mse", "ssim", "fid_mvg", "fid_gmm", "fid_reconstruction", "rank")
EVERYTHING = ("mse", "ssim", "fid_prior", "fid_mvg", "fid_gmm", "fid_reconstruction", "fid_interpolation", "kid_prior",
              "kid_mvg", "kid_gmm", "rank", "effective_rank", "isometry", "parameters",
              "training_seconds")  # fmt: skip
DIMENSIONS = (32, 64, 128, 256, 512)
# The classifier of codes takes seconds and always has its published 500 epochs. The supervised network is scaled, but
# to no fewer than 500 steps of 100 images: with few labels an epoch is a single step.
CLASSIFIED = tuple(
    Cell("classification.py", {"--train-size": size}, rename={"test_accuracy": f"accuracy_{size}"}) for size in LABELS
)
SUPERVISED = tuple(
    Cell("classification.py", {"--supervised": True} | cell.flags, 500, 50_000 // max(size, 100), cell.rename)
    for size, cell in zip(LABELS, CLASSIFIED, strict=True)
)
DENSITIES = {"RaDOGAGA, h(d) = d": "radogaga-d", "RaDOGAGA, h(d) = log d": "radogaga-log", "DAGMM": "dagmm"}
TABULAR = ("thyroid", "kddcup", "kddcup-rev", "arrhythmia")

# Few dimensions: there the metric of an autoencoder is uneven enough to see, and a budget of minutes shows it. λ1 keeps
# all twelve (the least carries a variance of 0.0012), λ2 w² gives the steps the length that a fresh network has. β-VAE,
# the baseline, has the same two weights. How they were chosen: docs/isometry.md.
SMALL_CODE = {"--arch": "mlp", "-n": 12, "--lr": 1e-3}
DISTORTIONS = {"--lambda1": 4e3, "--lambda2": 1e3}
ISOMETRIC = {
    "AE": irmae(0),
    "IRMAE, l = 8": irmae(8),
    "VAE": {"--model": "vae"},
    "WAE-MMD": {"--model": "wae-mmd"},
    "beta-VAE": {"--model": "beta-vae"} | DISTORTIONS,
    "RaDOGAGA": {"--model": "radogaga", "--noise-width": 1.1} | DISTORTIONS,
}

TABLES = {
    "depth": Table(
        "Number of linear layers (IRMAE, supplement, table 4)",
        "mnist",
        tuple(Row(f"l = {layers}" if layers else "AE, l = 0", irmae(layers), x=layers) for layers in (0, 2, 4, 8, 12)),
        IMAGES,
        ("rank", "fid_mvg", "mse"),
        "l, linear layers",
        {
            "rank": numbers(["l = 2", "l = 4", "l = 8", "l = 12"], [70, 39, 8, 4]),
            "fid_mvg": numbers(["l = 2", "l = 4", "l = 8", "l = 12"], [44.0, 30.1, 37.4, 62.6]),
        },
        (("falls", "rank"), ("inside", "fid_mvg")),
    ),
    "variance": Table(
        "Variance of the linear layers at the start (IRMAE, supplement, table 3; l = 8)",
        "mnist",
        tuple(Row(f"{factor}x", irmae(8, **{"--init-variance": factor}), x=factor) for factor in (1, 2, 4)),
        IMAGES,
        ("rank", "fid_mvg", "mse"),
        "factor on the variance",
        {
            "rank": numbers(["1x", "2x", "4x"], [8, 43, 66]),
            "fid_mvg": numbers(["1x", "2x", "4x"], [37.4, 33.8, 49.0]),
        },
        (("rises", "rank"), ("inside", "fid_mvg")),
    ),
    "latent-dim": Table(
        "Dimension of the code (IRMAE, supplement, table 6; l = 4)",
        "celeba",
        tuple(
            Row(f"{name}, n = {n}", irmae(layers, **{"-n": n}), series=name, x=n)
            for name, layers in (("IRMAE", 4), ("AE", 0))
            for n in DIMENSIONS
        ),
        IMAGES,
        ("fid_mvg", "rank", "mse"),
        "n, dimension of the code",
        {
            "fid_mvg": numbers([f"IRMAE, n = {n}" for n in DIMENSIONS], [81.6, 64.6, 47.6, 42.7, 42.0])
            | numbers([f"AE, n = {n}" for n in DIMENSIONS], [78.2, 60.1, 46.0, 45.4, 53.9])
        },
    ),
    "baselines": Table(
        "IRMAE beside other regularised autoencoders (IRMAE, supplement, table 5)",
        "celeba",
        (
            Row("IRMAE, l = 4", irmae(4)),
            Row("RAE", {"--model": "rae"}),
            Row("WAE", {"--model": "wae-mmd"}),
            Row("AE", irmae(0)),
        ),
        IMAGES,
        ("fid_mvg", "fid_gmm", "mse"),
        published={"fid_mvg": numbers(["IRMAE, l = 4", "RAE", "WAE", "AE"], [42.0, 44.7, 53.7, 53.9])},
    ),
    "classification": Table(
        "Accuracy of a classifier of the codes against the number of labels (IRMAE, section 4.4)",
        "mnist",
        (
            Row("AE", irmae(0), CLASSIFIED),
            Row("VAE", {"--model": "vae"}, CLASSIFIED),
            Row("IRMAE, l = 8", irmae(8), CLASSIFIED),
            Row("supervised", None, SUPERVISED),
        ),
        tuple(f"accuracy_{size}" for size in LABELS),
        tuple(f"accuracy_{size}" for size in LABELS),
        "labels",
        positions=LABELS,
    ),
    "isometry": Table(
        "Inner products in latent and data space (RaDOGAGA, section 5.1)",
        "mnist",
        tuple(
            Row(label, flags | SMALL_CODE, (Cell("isometry.py", {"--pairs": 10_000}),))
            for label, flags in ISOMETRIC.items()
        ),
        ("isometry", "isometry_ssim", "metric_variation", "mse"),
        ("isometry", "metric_variation"),
    ),
    "isometry-celeba": Table(
        "Inner products in latent and data space (RaDOGAGA, section 5.1, networks and λ as published)",
        "celeba",
        (
            Row("RaDOGAGA", as_preset("radogaga-celeba"), (Cell("isometry.py"),)),
            Row("beta-VAE", as_preset("beta-vae-celeba"), (Cell("isometry.py"),)),
            Row("VAE", {"--model": "vae"}, (Cell("isometry.py"),)),
            Row("AE", irmae(0), (Cell("isometry.py"),)),
        ),
        ("isometry", "isometry_ssim", "metric_variation", "mse"),
        ("isometry", "metric_variation"),
        published_train={"--arch": "gdn", "-n": 256},
    ),
    "density": Table(
        "Estimated against true density on the toy data (RaDOGAGA, section 5.2)",
        None,
        tuple(
            Row(label, None, (Cell("density.py", {"--models": name, "--runs": 1}, 60),))
            for label, name in (DENSITIES | {"PCA and Gaussian mixture": "pca-gmm"}).items()
        ),
        ("pearson", "spearman"),
        ("pearson", "spearman"),
    ),
    "anomaly": Table(
        "Anomaly detection (RaDOGAGA, section 5.3)",
        None,
        tuple(
            Row(
                f"{dataset}, {label}",
                None,
                (Cell("anomaly.py", {"--dataset": dataset, "--models": name, "--runs": 1, "--jobs": 1}),),
            )
            for dataset in TABULAR
            for label, name in DENSITIES.items()
        ),
        ("precision", "recall", "f1", "roc_auc"),
        ("f1", "roc_auc"),
    ),
    "models": Table(
        "Every model of the repository on one data set, all metrics",
        "mnist",
        tuple(Row(name, {"--model": name}) for name in models.MODELS),
        EVERYTHING,
        ("fid_mvg", "fid_gmm", "mse", "rank"),
    ),
}

"""The published tables as data: which models they compare, which numbers they show, and what was published.

Flags are written by destination: ``linear_layers`` is ``--linear-layers`` on the command line.
"""

from dataclasses import replace

import models
from experiments.columns import FACTORS
from experiments.presets import BETA_VAE, MMD_CELEBA, RADOGAGA, RAE_CELEBA
from experiments.table_types import Cell, Flags, Row, Table

LABELS = (10, 100, 1000, 10_000)  # of the classification table


def irmae(layers: int, **flags: object) -> Flags:
    """Flags of IRMAE with l layers; of the plain autoencoder for 0."""
    return ({"model": "irmae", "linear_layers": layers} if layers else {"model": "ae"}) | flags


IMAGES = ("mse", "ssim", "fid_mvg", "fid_gmm", "fid_reconstruction", "rank")
EVERYTHING = ("mse", "ssim", "fid_prior", "fid_mvg", "fid_gmm", "fid_reconstruction", "fid_interpolation", "kid_prior",
              "kid_mvg", "kid_gmm", "rank", "effective_rank", "isometry", "parameters",
              "training_seconds")  # fmt: skip
# The classifier of codes takes seconds and always has its published 500 epochs. The supervised network is scaled, but
# to no fewer than 500 steps of 100 images: with few labels an epoch is a single step.
CLASSIFIED = tuple(
    Cell("classification.py", {"train_size": size, "subset": "first"}, rename={"test_accuracy": f"accuracy_{size}"})
    for size in LABELS
)
CLASSIFIED_ENCODER = tuple(replace(cell, flags=cell.flags | {"codes": "encoder"}) for cell in CLASSIFIED)
CLASSIFIED_FULL = tuple(replace(cell, flags=cell.flags | {"codes": "full"}) for cell in CLASSIFIED)
SUPERVISED = tuple(
    Cell("classification.py", {"supervised": True} | cell.flags, 500, 50_000 // max(size, 100), cell.rename)
    for size, cell in zip(LABELS, CLASSIFIED, strict=True)
)
SPECTRUM = (Cell("singular.py"),)
DENSITIES = {"RaDOGAGA, h(d) = d": "radogaga-d", "RaDOGAGA, h(d) = log d": "radogaga-log", "DAGMM": "dagmm"}

# Few dimensions: there the metric of an autoencoder is uneven enough to see, and a budget of minutes shows it. λ1 keeps
# all twelve (the least carries a variance of 0.0012), λ2 w² gives the steps the length that a fresh network has. β-VAE,
# the baseline, has the same two weights. Chosen on training images, and the epochs before any result: docs/isometry.md.
SMALL_CODE: Flags = {"arch": "mlp", "latent_dim": 12, "lr": 1e-3}
DISTORTIONS: Flags = {"lambda1": 4e3, "lambda2": 1e3}
AE, VAE, WAE = ({"model": name} for name in ("ae", "vae", "wae-mmd"))
COMPARED: dict[str, Flags] = {"AE": AE, "IRMAE, l = 8": irmae(8), "VAE": VAE, "WAE-MMD": WAE}
COMPARED["beta-VAE"] = DISTORTIONS | {"model": "beta-vae"}
COMPARED["RaDOGAGA"] = DISTORTIONS | {"model": "radogaga", "noise_width": 1.1}
CELEBA: dict[str, Flags] = {"RaDOGAGA": RADOGAGA, "beta-VAE": BETA_VAE, "VAE": VAE, "AE": AE}
# RAE and WAE as in their own publications, the crop apart.
BASELINES: dict[str, Flags] = {"RAE-L2, n = 64": RAE_CELEBA, "WAE-MMD, n = 64": MMD_CELEBA}
ISOMETRY = ("isometry_released", "isometry_uniform", "isometry_released_rescaled", "isometry_uniform_rescaled",
            "isometry_ssim_released", "metric_variation", "mse")  # fmt: skip

TABLES = {
    "depth": Table(
        "Number of linear layers (IRMAE, supplement, table 4)",
        "mnist",
        tuple(Row(f"l = {layers}" if layers else "AE, l = 0", irmae(layers), x=layers) for layers in (0, 2, 4, 8, 12)),
        IMAGES,
        ("rank", "fid_mvg", "mse"),
        "l, linear layers",
        {"rank": (None, 70, 39, 8, 4), "fid_mvg": (None, 44.0, 30.1, 37.4, 62.6)},
        (("falls", "rank"), ("inside", "fid_mvg")),
    ),
    "variance": Table(
        "Variance of the linear layers at the start (IRMAE, supplement, table 3; l = 8)",
        "mnist",
        tuple(Row(f"{factor}x", irmae(8, init_variance=float(factor)), x=factor) for factor in (1, 2, 4)),
        IMAGES,
        ("rank", "fid_mvg", "mse"),
        "factor on the variance",
        {"rank": (8, 43, 66), "fid_mvg": (37.4, 33.8, 49.0)},
        (("rises", "rank"), ("inside", "fid_mvg")),
    ),
    "shape": Table(
        "Rank and factors of the code, by initial weights and linear layers (IRMAE, section 4.1)",
        "shape",
        tuple(
            Row(f"{f'l = {layers}' if layers else 'AE'}, {init}", irmae(layers, init=init), SPECTRUM, init, layers)
            for init in ("pytorch", "kaiming")
            for layers in (0, 2, 4, 8)
        ),
        ("rank", "effective_rank", *FACTORS, "circle or square, accuracy"),
        ("rank", "effective_rank", "size", "red - green", "circle or square, accuracy"),
        "l, linear layers",
    ),
    "latent-dim": Table(
        "Dimension of the code (IRMAE, supplement, table 6; l = 4)",
        "celeba",
        tuple(
            Row(f"{name}, n = {n}", irmae(layers, latent_dim=n), series=name, x=n)
            for name, layers in (("IRMAE", 4), ("AE", 0))
            for n in (32, 64, 128, 256, 512)
        ),
        IMAGES,
        ("fid_mvg", "rank", "mse"),
        "n, dimension of the code",
        {"fid_mvg": (81.6, 64.6, 47.6, 42.7, 42.0, 78.2, 60.1, 46.0, 45.4, 53.9)},
    ),
    "baselines": Table(
        "IRMAE beside RAE and WAE with their own published configurations (IRMAE, supplement, table 5)",
        "celeba",
        tuple(Row(*row) for row in (("IRMAE, l = 4", irmae(4)), *BASELINES.items(), ("AE", AE))),
        IMAGES,
        ("fid_mvg", "fid_gmm", "mse"),
        published={"fid_mvg": (42.0, 44.7, 53.7, 53.9)},
    ),
    "classification": Table(
        "Accuracy of a classifier of the codes against the number of labels (IRMAE, section 4.4)",
        "mnist",
        (
            *(Row(label, COMPARED[label], CLASSIFIED) for label in ("AE", "VAE")),
            Row("IRMAE, l = 8: the encoder's code", irmae(8), CLASSIFIED_ENCODER),
            Row("IRMAE, l = 8: the full code", irmae(8), CLASSIFIED_FULL),
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
        tuple(Row(label, flags | SMALL_CODE, (Cell("isometry.py"),)) for label, flags in COMPARED.items()),
        ISOMETRY,
        ("isometry_released", "isometry_uniform", "metric_variation"),
        epochs=10,
        batch_size=128,
    ),
    "isometry-celeba": Table(
        "Inner products in latent and data space (RaDOGAGA, section 5.1, networks and λ as published)",
        "celeba",
        tuple(Row(label, flags, (Cell("isometry.py"),)) for label, flags in CELEBA.items()),
        ISOMETRY,
        ("isometry_released", "isometry_uniform", "metric_variation"),
        published_train={"arch": "gdn", "latent_dim": 256, "crop": 178},
    ),
    "density": Table(
        "Estimated against true density on the toy data (RaDOGAGA, section 5.2)",
        None,
        tuple(
            Row(label, None, (Cell("density.py", {"models": name, "runs": 1}, 60),))
            for label, name in (
                DENSITIES | {"DAGMM, z alone": "dagmm-no-residual", "PCA and Gaussian mixture": "pca-gmm"}
            ).items()
        ),
        ("pearson", "spearman"),
        ("pearson", "spearman"),
    ),
    "anomaly": Table(
        "Anomaly detection (RaDOGAGA, section 5.3)",
        None,
        tuple(
            Row(
                f"{name}, {label}{suffix}",
                None,
                (Cell("anomaly.py", {"runs": 1, "jobs": 1, "dataset": name, "models": model, residual: True}),),
            )
            for name in ("thyroid", "kddcup", "kddcup-rev", "arrhythmia")
            for label, model in DENSITIES.items()
            for residual, suffix in (("residual", ""), ("no_residual", ", z alone"))
        ),
        ("precision", "recall", "f1", "roc_auc"),
        ("f1", "roc_auc"),
    ),
    "models": Table(
        "Every model of the repository on one data set, all metrics",
        "mnist",
        tuple(Row(name, {"model": name}) for name in models.MODELS),
        EVERYTHING,
        ("fid_mvg", "fid_gmm", "mse", "rank"),
    ),
}

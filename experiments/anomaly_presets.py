"""The settings of anomaly.py, as data: of every model on every data set (docs/anomaly.md says how they were chosen)."""

from typing import Any

Settings = dict[str, Any]
TRAINING = ("lr", "epochs", "batch_size")  # of a network; the other settings are its constructor's
OVERRIDES = ("latent_dim", "components", "lambda1", "lambda2", "mixture", "residual", *TRAINING)  # have a flag
LAMBDAS = {"lambda_energy": 0.1, "lambda_covariance": 0.005}  # of DAGMM's paper, section 4


def preset(radogaga: Settings, dagmm: Settings, **training) -> dict[str, Settings]:
    """Settings of every model on one data set; ``training`` is what RaDOGAGA and DAGMM have in common."""
    density = {"mixture": "network", "residual": True, **training}
    radogaga = {"model": "radogaga", "prior": "gmm", **density, **radogaga}
    dagmm = {"model": "dagmm", **LAMBDAS, **density, "lr": 1e-3, **dagmm}
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
# data, so that training need not find the scale; w is then the resolution.
# Dozens of components: more hidden units than DAGMM's 10 keep them apart in training, and EM finds them after it.
DOZENS = {"estimation_width": 64, "estimation_dropout": 0.0, "mixture": "em"}
KDDCUP: Settings = {
    "radogaga": networks("mlp:64", 12, 32, noise_width=0.003, lambda2=8e7, **DOZENS),
    "dagmm": networks("mlp:64", 12, 32, mixture="em"),
    **{"lr": 1e-2, "batch_size": 256},
}
PRESETS: dict[str, dict[str, Settings]] = {
    "kddcup": preset(**KDDCUP, epochs=2),
    "kddcup-rev": preset(**KDDCUP, epochs=4),
    "thyroid": preset(
        networks("mlp:30-24", 6, 2, noise_width=0.01, lambda2=3.6e5),
        networks("mlp:30-24", 6, 2, lr=3e-3),
        **{"lr": 1e-2, "batch_size": 256, "epochs": 200},
    ),
    "arrhythmia": preset(
        networks("mlp:64", 60, 1, noise_width=0.1, lambda2=1.6e5),
        networks("mlp:10", 2, 2, epochs=400),  # its paper's networks
        **{"lr": 3e-3, "batch_size": 64, "epochs": 50},
    ),
    "default": preset(
        networks("mlp:32-16", 4, 2, noise_width=0.03, lambda2=1e5),
        networks("mlp:32-16", 2, 2),
        **{"lr": 3e-3, "batch_size": 256, "epochs": 200},
    ),
}

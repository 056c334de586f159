"""The table of models: one row each. ``build`` makes a model from plain values, the ones its checkpoint stores."""

import inspect
from dataclasses import dataclass

from models.ae import AE, IRMAE
from models.base import Autoencoder
from models.dagmm import DAGMM
from models.networks import ARCHITECTURES
from models.radogaga import RaDOGAGA
from models.vae import VAE
from utils.errors import UserError


@dataclass(frozen=True)
class Option:
    """A command-line flag of a model; ``utils.cli`` turns it into an argument.

    Attributes:
        flags: as typed by the user.
        kind: "positive", "positive_float", ... a key of ``utils.cli.KINDS``, or the choices, "mse|ssim".
        help: one line with the paper's symbol; the default is added from the constructor's signature.
    """

    flags: tuple[str, ...]
    kind: str
    help: str


@dataclass(frozen=True)
class Row:
    """One model: its class, and the flags that set the keyword arguments of its constructor."""

    cls: type[Autoencoder]
    title: str
    options: dict[str, Option]


LINEAR_LAYERS = Option(
    ("-l", "--linear-layers"), "natural", "l, linear layers after the encoder; 0 is the plain autoencoder"
)

MODELS = {
    "ae": Row(AE, "AE: no regulariser", {}),
    "irmae": Row(
        IRMAE,
        "IRMAE (arXiv 2010.00679): implicit rank minimisation",
        {
            "linear_layers": LINEAR_LAYERS,
            "init_variance": Option(
                ("--init-variance",), "positive_float", "factor on the variance of the linear layers at the start"
            ),
        },
    ),
    "vae": Row(
        VAE,
        "VAE (arXiv 1312.6114): KL to N(0, I)",
        {"beta": Option(("--beta",), "non_negative_float", "β, weight of the KL term")},
    ),
    "radogaga": Row(
        RaDOGAGA,
        "RaDOGAGA (arXiv 1910.04329): isometric code by rate and distortion",
        {
            "lambda1": Option(("--lambda1",), "non_negative_float", "λ1, weight of the reconstruction D(x, x̂)"),
            "lambda2": Option(("--lambda2",), "non_negative_float", "λ2, weight of the noise's effect D(x̂, x̆)"),
            "h": Option(("--h",), "d|log", "h(D), what of the reconstruction is minimised: D or log D"),
            "distortion": Option(("--distortion",), "mse|ssim", "D: mean squared error or 1 − SSIM"),
            "prior": Option(("--prior",), "factorized|gmm", "P(z): entropy bottleneck, or Gaussian mixture"),
            "noise_width": Option(("--noise-width",), "positive_float", "w, the noise ε is uniform on (−w/2, w/2)"),
            "components": Option(("--components",), "positive", "K, Gaussians of the prior gmm"),
        },
    ),
    "dagmm": Row(
        DAGMM,
        "DAGMM (Zong et al. 2018): Gaussian mixture over code and reconstruction error",
        {
            "components": Option(("--components",), "positive", "K, Gaussians of the mixture"),
            "lambda_energy": Option(("--lambda-energy",), "non_negative_float", "λ1, weight of the energy"),
            "lambda_covariance": Option(
                ("--lambda-covariance",), "non_negative_float", "λ2, weight of Σ 1/diag(covariance)"
            ),
        },
    ),
}

# Every model takes these; their values come from the data set unless the user gives them.
SHARED = ("architecture", "channels", "latent_dim")


def options(name: str) -> dict[str, object]:
    """The model's own options and their defaults, from the signature of its constructor."""
    signature = inspect.signature(row(name).cls)
    return {key: p.default for key, p in signature.parameters.items() if key not in SHARED}


def row(name: str) -> Row:
    """The table's row of that name. Raises UserError with the names there are."""
    if name not in MODELS:
        raise UserError(f"unknown model {name!r}: choose from {', '.join(MODELS)}")
    return MODELS[name]


def build(name: str, **config) -> Autoencoder:
    """A freshly initialised model.

    Args:
        name: a row of ``MODELS``.
        config: plain values for its constructor, ``architecture``, ``channels`` and ``latent_dim`` among them.

    Raises:
        UserError: unknown name, or an option that this model does not take.
    """
    cls = row(name).cls
    foreign = sorted(set(config) - set(options(name)) - set(SHARED))
    if foreign:
        raise UserError(
            f"the model {name} takes no {', '.join(foreign)}: it has {', '.join(options(name)) or 'no options'}"
        )
    return cls(**config)


def refuse_foreign_options(name: str, given: dict[str, object]) -> None:
    """Raises UserError where the user gave a flag that belongs to other models only.

    Args:
        name: the model that was chosen.
        given: the command line's values by option; None where the user gave nothing.
    """
    own = options(name)
    for key, option in {key: option for row in MODELS.values() for key, option in row.options.items()}.items():
        # -l 0 is how the published commands ask for a plain autoencoder.
        if key in own or given.get(key) is None or (key == "linear_layers" and given[key] == 0):
            continue
        owners = [other for other in MODELS if key in options(other)]
        raise UserError(
            f"{option.flags[0]} {given[key]}: the model {name} has no such option, it belongs to {', '.join(owners)}"
        )


def choose(name: str | None, linear_layers: int | None, vae: bool) -> str:
    """The model that ``--model``, ``-l`` and ``--vae`` mean together; -l alone and --vae alone are the published flags.

    Raises:
        UserError: two of them name different models.
    """
    if name is None:
        if vae and linear_layers:
            raise UserError(f"--vae and -l {linear_layers} name two models: a VAE has no linear layers; leave one out")
        return "vae" if vae else "irmae" if linear_layers else "ae"
    row(name)
    if vae and name != "vae":
        raise UserError(f"--vae and --model {name} name two models: leave one out")
    if name == "irmae" and linear_layers == 0:
        raise UserError("--model irmae needs at least one linear layer, but -l is 0: leave -l out or use --model ae")
    if name != "irmae" and linear_layers:
        raise UserError(f"-l {linear_layers} and --model {name} name two models: only irmae has linear layers")
    return name


def image_size(architecture: str) -> int:
    """Height and width (pixels) of the images that an architecture takes."""
    return ARCHITECTURES[architecture].image_size

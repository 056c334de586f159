"""The table of models: one row each. ``build`` makes a model from plain values, the ones its checkpoint stores."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from models.ae import AE, IRMAE
from models.base import Autoencoder
from models.beta_vae import BetaVAE
from models.dagmm import DAGMM
from models.infocat_vae import CatVAE, InfoCatVAE
from models.networks.conv import ARCHITECTURES
from models.radogaga import RaDOGAGA
from models.rae import RAE
from models.vae import VAE
from models.wae import WAEGAN, WAEMMD
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
    """One model: its class, and the flags that set the keyword arguments of its constructor.

    Attributes:
        arch: the networks that it is published with (a key of ``--arch``); unless given, the data set's.
        latent_dim: n from the values of its options, for a model whose n is not free.
    """

    cls: type[Autoencoder]
    title: str
    options: dict[str, Option]
    arch: str = "conv"
    latent_dim: Callable[[dict], int] | None = None


LINEAR_LAYERS = Option(
    ("-l", "--linear-layers"), "natural", "l, linear layers after the encoder; 0 is the plain autoencoder"
)
WAE_OPTIONS = {
    "pz_scale": Option(("--pz-scale",), "positive_float", "σ_z, standard deviation of the prior"),
    "noise": Option(("--noise",), "none|gaussian|add_noise", "of the encoder: a drawn code, or noise on the image"),
    "cost_scale": Option(("--cost-scale",), "positive_float", "s, factor on the squared error summed over pixels"),
    "e_pretrain": Option(
        ("--e-pretrain",), "natural", "steps that match mean and covariance of the code to the prior's"
    ),
}
CATVAE_OPTIONS = {
    "num_classes": Option(("--num-classes",), "positive", "K, classes to find"),
    "sub_dim": Option(("--sub-dim",), "positive", "δ, dimensions of the code for each class; n = K δ"),
    "prior_mean": Option(("--prior-mean",), "non_negative_float", "λ, mean of a class's prior on its own axes"),
    "kl_weight": Option(("--kl-weight",), "non_negative_float", "β, weight of the divergence from the class's prior"),
    "entropy_weight": Option(("--entropy-weight",), "finite_float", "γ, weight of Σ a log a, the classes' entropy"),
    "balance_weight": Option(("--balance-weight",), "non_negative_float", "weight of equally large classes (ours)"),
    "smooth_weight": Option(
        ("--smooth-weight",), "non_negative_float", "weight of classes that withstand deformations (ours)"
    ),
}


def catvae_latent_dim(options: dict) -> int:
    return options["num_classes"] * options["sub_dim"]


LAMBDA1 = Option(("--lambda1",), "non_negative_float", "λ1, weight of the reconstruction D(x, x̂)")
LAMBDA2 = Option(("--lambda2",), "non_negative_float", "λ2, weight of the noise's effect D(x̂, x̆)")
DISTORTION = Option(("--distortion",), "mse|ssim", "D: mean squared error or 1 − SSIM")

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
    "wae-mmd": Row(
        WAEMMD,
        "WAE-MMD (arXiv 1711.01558): maximum mean discrepancy between codes and prior",
        {
            "mmd_weight": Option(("--mmd-weight",), "non_negative_float", "λ, weight of the discrepancy"),
            "kernel": Option(("--kernel",), "imq|rbf", "of the discrepancy: inverse multiquadratics or Gaussian"),
            **WAE_OPTIONS,
        },
    ),
    "wae-gan": Row(
        WAEGAN,
        "WAE-GAN (arXiv 1711.01558): an adversary tells codes from draws of the prior",
        {
            "gan_weight": Option(("--gan-weight",), "non_negative_float", "λ, weight of the encoder's term"),
            "adversary_lr": Option(("--adversary-lr",), "positive_float", "learning rate of the adversary"),
            "prior_offset": Option(("--prior-offset",), "switch", "add log p(z) to the adversary's output"),
            **WAE_OPTIONS,
        },
    ),
    "rae": Row(
        RAE,
        "RAE (arXiv 1903.12436): a small code and a smooth decoder",
        {
            "penalty": Option(("--penalty",), "l2|gp|sn", "of the decoder: weights, gradient, or spectral norm"),
            "embedding_weight": Option(("--embedding-weight",), "non_negative_float", "β, weight of the code's square"),
            "penalty_weight": Option(("--penalty-weight",), "non_negative_float", "λ, weight of the penalty"),
        },
    ),
    "catvae": Row(
        CatVAE,
        "CatVAE (arXiv 1806.08240): a mode of the prior for each of K classes",
        CATVAE_OPTIONS,
        "mlp",
        catvae_latent_dim,
    ),
    "infocat-vae": Row(
        InfoCatVAE,
        "InfoCatVAE (arXiv 1806.08240): CatVAE whose encoder finds the class of what it generates",
        {
            **CATVAE_OPTIONS,
            "info_weight": Option(("--info-weight",), "non_negative_float", "weight of that cross-entropy"),
        },
        "mlp",
        catvae_latent_dim,
    ),
    "beta-vae": Row(
        BetaVAE,
        "beta-vae: RaDOGAGA's variational baseline, KL to N(0, I) and the same two distortions",
        {
            "lambda1": LAMBDA1,
            "lambda2": LAMBDA2,
            "distortion": DISTORTION,
            "joint": Option(("--joint",), "switch", "one distortion D(x, x̆) of the noisy code: the ordinary β-VAE"),
        },
    ),
    "radogaga": Row(
        RaDOGAGA,
        "RaDOGAGA (arXiv 1910.04329): isometric code by rate and distortion",
        {
            "lambda1": LAMBDA1,
            "lambda2": LAMBDA2,
            "h": Option(("--h",), "d|log", "h(D), what of the reconstruction is minimised: D or log D"),
            "distortion": DISTORTION,
            "prior": Option(("--prior",), "factorized|gmm", "P(z): entropy bottleneck, or Gaussian mixture"),
            "noise_width": Option(("--noise-width",), "positive_float", "w, the noise ε is uniform on (−w/2, w/2)"),
            "components": Option(("--components",), "positive", "K, Gaussians of the prior gmm"),
            "estimation_width": Option(
                ("--estimation-width",), "positive", "hidden units of the network behind the prior gmm"
            ),
            "estimation_dropout": Option(
                ("--estimation-dropout",), "probability", "of the network behind the prior gmm"
            ),
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


ARCHS = {
    "conv": "the data set's own",
    "wae": "DCGAN with batch normalisation, of WAE",
    "mlp": "one hidden layer of 400 units, of InfoCatVAE",
    "gdn": "divisive normalisation, of RaDOGAGA (with -n 256)",
}


def architecture(name: str, arch: str | None, described: dict) -> str:
    """The architecture (``models.networks.ARCHITECTURES``) of a model on a data set.

    Args:
        name: a row of ``MODELS``.
        arch: a key of ``ARCHS``, or None for the one the model is published with.
        described: what ``data.describe`` says.
    """
    arch = arch or row(name).arch
    if arch == "conv":
        return described["architecture"]
    return f"{'image-mlp' if arch == 'mlp' else arch}-{described['image_size']}"


def arch(architecture: str) -> str:
    """The key of ``ARCHS`` that ``architecture`` made this one from."""
    prefix = architecture.rpartition("-")[0]
    return {"image-mlp": "mlp"}.get(prefix, prefix) or "conv"


def image_size(architecture: str) -> int:
    """Height and width (pixels) of the images that an architecture takes. Raises UserError for an unknown one."""
    if architecture not in ARCHITECTURES:
        raise UserError(f"unknown architecture {architecture!r}: choose from {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[architecture].image_size

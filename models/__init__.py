"""The table of models. ``build`` makes a model from plain values, which its checkpoint stores."""

import inspect
from collections.abc import Mapping
from functools import cache

from torch import nn

from models import networks
from models.ae import AE, IRMAE
from models.base import Autoencoder
from models.dagmm import DAGMM
from models.infocat_vae import CatVAE, InfoCatVAE
from models.lorae import LoRAE
from models.radogaga import RaDOGAGA
from models.rae import RAE
from models.rrae import RRAE
from models.vae import VAE, BetaTCVAE, BetaVAE
from models.wae import WAEGAN, WAEMMD
from utils.errors import UserError
from utils.flags import POSITIVE, Flag

MODELS: dict[str, type[Autoencoder]] = {
    "ae": AE,
    "irmae": IRMAE,
    "lorae": LoRAE,
    "rrae": RRAE,
    "vae": VAE,
    "wae-mmd": WAEMMD,
    "wae-gan": WAEGAN,
    "rae": RAE,
    "catvae": CatVAE,
    "infocat-vae": InfoCatVAE,
    "beta-vae": BetaVAE,
    "beta-tcvae": BetaTCVAE,
    "radogaga": RaDOGAGA,
    "dagmm": DAGMM,
}

ARCHS = {
    "conv": "the data set's own",
    "wae": "DCGAN with batch normalisation, of WAE",
    "wae-pytorch": "that of telin0411/WAE-PyTorch, for 64 pixels",
    "mlp": "one hidden layer of 400 units, of InfoCatVAE",
    "gdn": "divisive normalisation, of RaDOGAGA (with -n 256)",
}

# Every model takes these; their values come from the data set unless the user gives them.
SHARED = ("architecture", "channels", "latent_dim")


def find(name: str) -> type[Autoencoder]:
    """The class of that name. Raises UserError with the names there are."""
    if name not in MODELS:
        raise UserError(f"unknown model {name!r}: choose from {', '.join(MODELS)}")
    return MODELS[name]


@cache
def _parameters(name: str) -> dict[str, inspect.Parameter]:
    """The model's own arguments: those with a ``Flag`` in its constructor, and in the one its ``**options`` go to."""
    found: dict[str, inspect.Parameter] = {}
    for cls in find(name).__mro__:
        if "__init__" not in vars(cls):
            continue
        parameters = inspect.signature(vars(cls)["__init__"]).parameters
        found |= {key: p for key, p in parameters.items() if hasattr(p.annotation, "__metadata__")}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return found


def options(name: str) -> dict[str, object]:
    """The model's own options and their defaults, from the signature of its constructor."""
    return {key: parameter.default for key, parameter in _parameters(name).items()}


def flags(name: str) -> dict[str, Flag]:
    """The command-line flags of the model's options, from the annotations of its constructor."""
    return {key: parameter.annotation.__metadata__[0] for key, parameter in _parameters(name).items()}


def build(name: str, init: str = "pytorch", **config) -> Autoencoder:
    """A new model from ``init`` of ``networks.INITS``, ``SHARED`` and its options; UserError for what it has not."""
    foreign = sorted(set(config) - set(options(name)) - set(SHARED))
    if foreign:
        raise UserError(
            f"the model {name} takes no {', '.join(foreign)}: it has {', '.join(options(name)) or 'no options'}"
        )
    if init not in networks.INITS:
        raise UserError(f"unknown init {init!r}: choose from {', '.join(networks.INITS)}")
    if missing := [key for key in SHARED if key not in config]:
        raise UserError(f"the model {name} needs {', '.join(missing)}")
    for key in [key for key in config if key != "architecture"]:
        flags(name).get(key, POSITIVE).require(key, config[key])
    model = MODELS[name](**config | {"architecture": str(config["architecture"])})
    if init == "kaiming":
        networks.initialise_kaiming(nn.ModuleList([model.enc, model.dec]))
    return model


def refuse_foreign_options(name: str, given: Mapping[str, object]) -> None:
    """Raises UserError where ``given``, values by option or None, has a flag of other models."""
    own = options(name)
    for key, flag in {key: flag for other in MODELS for key, flag in flags(other).items()}.items():
        # -l 0 is how the published commands ask for a plain autoencoder.
        if key in own or given.get(key) is None or (key == "linear_layers" and given[key] == 0):
            continue
        owners = [other for other in MODELS if key in options(other)]
        raise UserError(
            f"{flag.names(key)[0]} {given[key]}: the model {name} has no such option, it belongs to {', '.join(owners)}"
        )


def refuse_idle_options(name: str, given: Mapping[str, object], typed: Mapping[str, object]) -> None:
    """Raises UserError for a ``typed`` option without effect beside the others in ``given``, presets included."""
    own = options(name)
    for key, flag in flags(name).items():
        needed, *values = flag.needs or [""]
        found = own.get(needed) if given.get(needed) is None else given[needed]
        if key in typed and needed in own and typed[key] != own[key] and found not in values:
            why = f"{needed} is {found}, expected {' or '.join(map(str, values))}"
            raise UserError(f"{flag.names(key)[0]} {typed[key]} has no effect: {why}; or leave it out")


def choose(name: str | None, linear_layers: int | None, vae: bool) -> str:
    """The model that ``--model``, ``-l`` and ``--vae`` (IRMAE's release) name. Raises UserError where they differ."""
    if name is None:
        if vae and linear_layers:
            raise UserError(f"--vae and -l {linear_layers} name two models: a VAE has no linear layers; leave one out")
        return "vae" if vae else "irmae" if linear_layers else "ae"
    find(name)
    if vae and name != "vae":
        raise UserError(f"--vae and --model {name} name two models: leave one out")
    if name == "irmae" and linear_layers == 0:
        raise UserError("--model irmae needs at least one linear layer, but -l is 0: leave -l out or use --model ae")
    if name != "irmae" and linear_layers:
        raise UserError(f"-l {linear_layers} and --model {name} name two models: only irmae has linear layers")
    return name


def architecture(name: str, arch: str | None, described: dict) -> str:
    """The name of a model's networks on a data set that ``data.describe`` describes; ``arch`` None: as published."""
    arch = arch or find(name).default_arch
    if arch == "conv":
        return described["architecture"]
    return f"{f'image-{arch}' if arch == 'mlp' or ':' in arch else arch}-{described['image_size']}"


def require_squared_error(name: str) -> None:
    """Raises UserError for a model of probabilities of pixels, which other values than those from 0 to 1 have not."""
    if find(name).bernoulli:
        others = ", ".join(other for other, model in MODELS.items() if not model.bernoulli)
        raise UserError(f"--model {name}: its cross-entropy is of pixels from 0 to 1; for a file choose from {others}")


def arch(architecture: str) -> str:
    """What ``--arch`` was for networks of this name."""
    if networks.VECTORS.fullmatch(architecture):
        return architecture
    family = networks.split(architecture)[0].removeprefix("image-")
    return family if family in ARCHS or ":" in family else "conv"


def image_size(architecture: str) -> int:
    """Height and width (pixels) of the images that an architecture takes. Raises UserError for an unknown one."""
    return networks.split(architecture)[1]

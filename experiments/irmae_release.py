"""Checkpoints of the code released with IRMAE: a bare state dict, whose names and shapes are all there is.

They determine the architecture, the channels, n, l and whether it is a VAE.
"""

import re
from pathlib import Path

from torch import Tensor

from utils.errors import UserError

FIRST_WIDTHS = {32: "mnist", 128: "celeba"}  # channels after the encoder's first convolution
PREFIXES = re.compile(r"^(module\.|_orig_mod\.)+")  # of DataParallel and of torch.compile


def unwrap(record: dict, path: Path) -> dict[str, Tensor]:
    """The state dict in a file of another trainer: bare, or as a value (``{"state_dict": ..., "epoch": ...}``).

    Prefixes that wrappers of the module add are removed. Raises UserError for none with the names ``enc.*``.
    """
    for candidate in (record, *(value for value in record.values() if isinstance(value, dict))):
        weights = {PREFIXES.sub("", str(key)): value for key, value in candidate.items()}
        if any(key.startswith("enc.") for key in weights) and all(isinstance(v, Tensor) for v in weights.values()):
            return weights
    found = f"it holds {', '.join(map(str, list(record)[:3]))}"
    raise UserError(f"{path}: neither a checkpoint of train.py nor a state dict of the IRMAE release ({found})")


def describe_weights(weights: dict[str, Tensor], path: Path) -> dict:
    """Name and ``config`` of the model of a state dict. Raises UserError for names or shapes of other code."""
    try:
        first = weights["enc.dcnn.0.weight"]
        if "enc.fc.weight" in weights:
            architecture = FIRST_WIDTHS[first.shape[0]]
            code_width, latent_dim = weights["enc.fc.weight"].shape[0], weights["dec.fc.weight"].shape[1]
        else:
            architecture = "shape"
            code_width, latent_dim = weights["enc.dcnn.8.weight"].shape[0], weights["dec.dcnn.0.weight"].shape[0]
    except (KeyError, IndexError) as error:
        lacking = f"no {error} as its networks have"
        raise UserError(f"{path}: a state dict, but not one of the code released with IRMAE ({lacking})") from error
    linear_layers = sum(key.startswith("mlp.hidden.") for key in weights)
    config = {"architecture": architecture, "channels": first.shape[1], "latent_dim": latent_dim}
    if code_width == 2 * latent_dim:
        return {"name": "vae", "config": config}
    if linear_layers:
        return {"name": "irmae", "config": config | {"linear_layers": linear_layers}}
    return {"name": "ae", "config": config}

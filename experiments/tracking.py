"""``train.py --wandb PROJECT``: what TensorBoard shows of a run, on Weights & Biases as well."""

import importlib.util
from pathlib import Path
from typing import Any

from utils import distributed
from utils.errors import UserError


def require(project: str) -> None:
    """Raises UserError where a project is given and wandb is not installed."""
    spec = importlib.util.find_spec("wandb") if project else None
    # A folder ./wandb, where runs are kept, is a package too, but one without a file.
    if project and (spec is None or spec.origin is None):
        raise UserError(f"--wandb {project}: wandb is not installed: pip install wandb, or leave the flag out")


def start(path: Path, state: Any) -> Any:
    """wandb's run for an ``experiments.run.Checkpoint``, whose provenance names it; None without ``--wandb``.

    A resumed training goes on in the run of its checkpoint; the epochs that this lacks are logged.
    """
    if not state.config.wandb or distributed.rank() != 0:
        return None
    import wandb

    names = [entry["wandb"] for entry in state.provenance if "wandb" in entry] or [None]
    about = {"project": state.config.wandb, "name": path.name, "config": state.config.to_dict()}
    try:
        run = wandb.init(**about, id=names[-1], resume="allow")
    except wandb.Error as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--wandb: {reason}; without a network set WANDB_MODE=offline") from error
    state.provenance[-1]["wandb"] = run.id
    return run

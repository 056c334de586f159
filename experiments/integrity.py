"""Whether the content of a checkpoint is what a freshly built run of its configuration would have saved.

A moment of another shape makes a fused optimiser write outside of its memory, and a value that is not finite spreads:
nothing of a file reaches a model, an optimiser or the random state before it was compared.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.base import Autoencoder
from utils import checkpoint, loop
from utils.errors import Diverged, UserError, exhausted

PLAIN = (str, int, float, type(None))


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn whatever exception the content of a checkpoint causes into a UserError about the file."""
    try:
        yield
    except UserError as error:
        if str(path) in str(error):
            raise
        raise checkpoint.damaged(path, str(error)) from error
    except Exception as error:
        if exhausted(error):
            raise
        raise checkpoint.damaged(path, f"not a usable checkpoint ({type(error).__name__}: {error})") from error


def finite(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def kind(value: object) -> str:
    """Type of a value; dtype and shape of a tensor."""
    if isinstance(value, Tensor) and value.layout == torch.strided:
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return type(value).__name__


def difference(found: object, expected: object, name: str) -> str | None:
    """Where ``found``, of a file, has another type, shape, dtype or key than ``expected``, or is not finite; or None.

    A dict is compared key by key; of anything else but tensors the type alone is.
    """
    if kind(found) != kind(expected) or (isinstance(found, Tensor) and found.is_meta):
        return f"{name}: {kind(found)}, expected {kind(expected)}"
    if isinstance(found, Tensor) and found.is_floating_point() and not torch.isfinite(found).all():
        return f"{name}: not finite numbers"
    if isinstance(found, dict) and isinstance(expected, dict):
        if odd := sorted(map(str, found.keys() ^ expected.keys())):
            return f"{name}: {'no' if odd[0] in map(str, expected) else 'an unknown'} {odd[0]}"
        parts = (difference(found[key], expected[key], f"{name}, {key}") for key in expected)
        return next(filter(None, parts), None)
    return None


def check(saved: Any, model: Autoencoder, path: Path) -> None:
    """Raises UserError where an ``experiments.run.Checkpoint`` is not of this model, newly built as it says."""
    with refusing(path):
        parts = [difference(dict(saved.weights), dict(model.state_dict()), "weights")]
        if saved.raw_weights is not None:
            parts.append(difference(dict(saved.raw_weights), dict(model.state_dict()), "raw_weights"))
        if saved.optimizer is not None:
            parts.append(moments(saved, model))
        if saved.random is not None:
            parts.append(random_state(saved.random))
        if model.train_size and saved.running["count"] > model.train_size:  # which the trainer sets
            parts.append(f"step {saved.step} of an epoch of {model.train_size} images")
        if wrong := next(filter(None, parts), None):
            raise checkpoint.damaged(path, f"its content is not that of the {saved.config.model} it names ({wrong})")


def check_finite(
    losses: dict[str, float], model: Autoencoder, optimizer: torch.optim.Optimizer, path: Path, epoch: int
) -> None:
    """Raises Diverged where a loss, a weight or a moment of the optimiser is not a finite number."""
    wrong = [f"{key} = {value}" for key, value in losses.items() if not math.isfinite(value)]
    wrong += [f"weights {key}" for key in checkpoint.not_finite(model.state_dict())]
    for number, state in optimizer.state_dict()["state"].items():
        wrong += [f"{key} of parameter {number}" for key in checkpoint.not_finite(state)]
    if wrong:
        kept = f"{path} holds the last good state" if path.exists() else "nothing was saved"
        raise Diverged(f"the training diverged in epoch {epoch} ({', '.join(wrong[:3])}); {kept}; try a lower --lr")


def checked_progress(saved: Any, path: Path) -> Any:
    """The checkpoint. Raises UserError where its metrics or its count of steps are none of a training."""
    if wrong := progress(saved):
        raise checkpoint.damaged(path, f"its content is not that of a training ({wrong})")
    return saved


def progress(saved: Any) -> str | None:
    for number, row in enumerate(saved.metrics, 1):
        if not isinstance(row, dict) or not {"epoch", "lr", "seconds", "valid_loss"} <= row.keys():
            return f"metrics, row {number}: no epoch, lr, seconds or valid_loss"
        if wrong := next((key for key, value in row.items() if not finite(value)), None):
            return f"metrics, row {number}: {wrong} is {row[wrong]!r}"
        if row["epoch"] != number or number > saved.epoch:
            return f"metrics, row {number}: epoch {row['epoch']} of {saved.epoch}"
    sums, count, size = saved.running["sums"], saved.running["count"], saved.config.batch_size
    if len(saved.metrics) != saved.epoch or not all(map(finite, [*sums.values(), saved.seconds])):
        return f"{len(saved.metrics)} rows of metrics after {saved.epoch} epochs"
    if not (max(0, saved.step - 1) * size <= count <= saved.step * size) or (count == 0) != (saved.step == 0):
        return f"step {saved.step} of an epoch, after {count} images in batches of {size}"
    if not all(isinstance(value, PLAIN) for each in saved.provenance for value in each.values()):
        return "provenance: not plain values"
    return None


def moments(saved: Any, model: Autoencoder) -> str | None:
    """What is wrong with the state of Adam: of every parameter its step and two moments, none before the first step."""
    fresh = loop.make_optimizer(model, saved.config.lr)
    parameters = [parameter for group in fresh.param_groups for parameter in group["params"]]
    expected = {"step": torch.zeros(())}
    every = {i: expected | dict.fromkeys(("exp_avg", "exp_avg_sq"), p.detach()) for i, p in enumerate(parameters)}
    started = saved.epoch + saved.step > 0
    wrong = difference(saved.optimizer, {"state": every if started else {}, "param_groups": []}, "optimizer")
    if wrong or not started:
        return wrong
    if [group["params"] for group in saved.optimizer["param_groups"]] != [
        group["params"] for group in fresh.state_dict()["param_groups"]
    ]:
        return "optimizer: other groups of parameters"
    for number, state in saved.optimizer["state"].items():
        if state["step"] < 1 or state["step"] != state["step"].round() or (state["exp_avg_sq"] < 0).any():
            return f"optimizer, state, {number}: step {state['step']:g}, or a negative second moment"
    return None


def random_state(saved: dict) -> str | None:
    """What is wrong with the states of the random number generators; that of a CUDA device may be None."""
    cuda = None if saved.get("cuda") is None else torch.empty(16, dtype=torch.uint8)
    if wrong := difference(saved, {"cpu": torch.get_rng_state(), "cuda": cuda}, "random"):
        return wrong
    torch.Generator().set_state(saved["cpu"])  # raises RuntimeError for numbers that are no state
    return None

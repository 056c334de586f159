"""The best epoch of a run, that of the lowest validation loss: what --keep-best keeps and --patience waits for."""

from typing import Any

from experiments import ema, formats
from utils import checkpoint


def best_epoch(metrics: list[dict]) -> int:
    """The first of equal ones; 0 before the first epoch has ended."""
    return min(metrics, key=lambda row: row["valid_loss"], default={"epoch": 0})["epoch"]


def finished(state: Any) -> bool:
    """Whether an ``experiments.run.Checkpoint`` has all its epochs, or those of ``patience`` were in vain."""
    return state.epoch >= state.config.epochs or 0 < state.config.patience <= state.epoch - best_epoch(state.metrics)


def keep(run: Any) -> None:
    """Copy the weights where the epoch that has ended is the best one; the next ``save`` of the run writes them."""
    if run.state.config.keep_best and best_epoch(run.state.metrics) == run.state.epoch:
        weights = {key: value.clone() for key, value in ema.evaluated(run).state_dict().items()}
        run.best = {"weights": weights, "epoch": run.state.epoch, "metrics": list(run.state.metrics)}


def write(run: Any) -> None:
    """A checkpoint to evaluate, not to resume. Before that of the run: if killed in between, its epochs come again."""
    if run.best:
        shared = {"format": formats.FORMAT, "config": run.state.config.to_dict(), "provenance": run.state.provenance}
        checkpoint.save(run.path.with_name(run.path.name + checkpoint.BEST), shared | run.best)
        run.best = {}

"""The exponential moving average of a run's weights (``--ema``): validated and evaluated in place of the last ones."""

import copy
from typing import Any

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from models.base import Autoencoder

FORGOTTEN = 0.01  # share of the initial weights in the average that no longer matters


class Average:
    """θ̄ ← D θ̄ + (1 − D) θ after each step, from the θ at its construction on; ``decay`` is D.

    ``torch.optim.swa_utils.AveragedModel`` would wait for the device in each step, to copy its count of them there.
    """

    def __init__(self, trained: Autoencoder, decay: float):
        self.trained, self.model = trained, copy.deepcopy(trained)
        self.parameters = [list(each.parameters()) for each in (self.model, trained)]
        self.average = get_ema_multi_avg_fn(decay)

    def step(self) -> None:
        self.average(*self.parameters, 0)


def start(run: Any, resuming: bool) -> None:
    """Let an ``experiments.run.Run`` with ``--ema`` average its weights: from these on, or as its checkpoint has it."""
    if run.state.config.ema:
        run.average = Average(run.model, run.state.config.ema)
        if resuming:
            run.average.model.load_state_dict(run.state.weights)


def caution(config: Any, images: int) -> None:
    """Say where a run of the ``experiments.run.RunConfig`` is too short for its average to forget the first weights."""
    steps = config.epochs * -(-images // config.batch_size)
    if config.ema and (share := config.ema**steps) > FORGOTTEN:
        print(
            f"caution: --ema {config.ema:g} is for longer runs: after {steps:,} steps the initial weights still make "
            f"up {100 * share:.0f} % of the average, which is what is validated and evaluated"
        )


@torch.no_grad()
def evaluated(run: Any) -> Autoencoder:
    """The model of the averaged weights, with the buffers (running statistics) of the trained one, else that itself."""
    if run.average is None:
        return run.model
    for averaged, trained in zip(run.average.model.buffers(), run.model.buffers(), strict=True):
        averaged.copy_(trained)
    return run.average.model

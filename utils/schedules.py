"""Learning rates that change from epoch to epoch, as the released codes change them."""

from collections.abc import Sequence

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

SCHEDULES = {
    "constant": "as --lr says",
    "wae": "halved after 30 epochs, divided by 5 after 50 and by 10 after 100 (WAE, 'manual')",
    "smooth": "by the same factor every epoch, down to a hundredth in the last (WAE, 'manual_smooth')",
    "plateau": "halved when 5 epochs have not lowered the validation loss by 1e-4 (RAE)",
}

PROGRESS = 1e-4  # of the validation loss, Keras's default


def factor(schedule: str, epoch: int, epochs: int, valid_losses: Sequence[float]) -> float:
    """On every learning rate in an epoch, counted from 0, of ``epochs``; ``valid_losses`` are of those before it.

    It depends on nothing else, so that a resumed run goes on as if it had never stopped.
    """
    if schedule == "wae":
        return (1 / 2 if epoch >= 30 else 1) / (5 if epoch >= 50 else 1) / (10 if epoch >= 100 else 1)
    if schedule == "smooth":
        return 0.01 ** ((epoch + 1) / epochs)
    if schedule == "plateau":
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        # Patience 5 of Keras, which the released code calls: the fifth epoch without progress ends it, here the next.
        plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=4, threshold=PROGRESS, threshold_mode="abs", eps=0)
        for loss in valid_losses:
            plateau.step(loss)
        return optimizer.param_groups[0]["lr"]
    return 1.0

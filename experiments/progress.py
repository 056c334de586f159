"""How long a training takes, from the steps that it took."""

import time
from collections.abc import Callable

import torch
from tqdm import tqdm

WARM_UP = 3  # first steps, which are slower: they take memory, compile and capture
STEPS, SECONDS = 20, 2.0  # of training before its time is estimated
LONG, FIRST_LOOK = 20 * 60, 5  # seconds after which fewer epochs are suggested, and how many


class Pace:
    """Of a run's ``steps`` in the ``epochs`` that it has still to train; says once, in one line, what they take."""

    def __init__(self, name: str, device: torch.device, epochs: int, steps: int):
        self.what, self.epochs, self.steps = f"{name}: {epochs} epoch{'s' * (epochs > 1)}", epochs, steps
        self.where = "GPU" if device.type == "cuda" else "CPU"
        self.taken, self.started, self.told = 0, 0.0, False

    def step(self, wait: Callable[[], object]) -> None:
        """After each step; ``wait`` waits for the device, which is asked only twice."""
        self.taken += 1
        if self.taken == WARM_UP:
            wait()
            self.started = time.monotonic()
        elif not self.told and self.taken >= WARM_UP + STEPS and time.monotonic() - self.started >= SECONDS:
            wait()
            self.told, each = True, self.seconds()
            look = f"--epochs {FIRST_LOOK} ({duration(each * self.steps / self.epochs * FIRST_LOOK)})"
            advice = f"; {look} gives a first look" if each * self.steps > LONG and self.epochs > FIRST_LOOK else ""
            tqdm.write(f"{self.what}, about {duration(each * self.steps)} on this {self.where}{advice}")

    def seconds(self) -> float:
        """Of a step, with its share of validations and checkpoints so far; 0 in the first few."""
        return (time.monotonic() - self.started) / (self.taken - WARM_UP) if self.taken > WARM_UP else 0.0

    def left(self) -> dict[str, str]:
        """For the bar: the time that the run still takes, where it is known."""
        return {"left": duration(self.seconds() * (self.steps - self.taken))} if self.taken > WARM_UP else {}


def duration(seconds: float) -> str:
    """In the unit that a person would use: "40 s", "25 min", "3 h", "12 days"."""
    size, unit = next(
        (each for each in ((86400, "days"), (3600, "h"), (60, "min")) if seconds >= 2 * each[0]), (1, "s")
    )
    return f"{max(1, round(seconds / size))} {unit}"

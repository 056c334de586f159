"""A command-line flag as plain data, and the number types that flags take. Imports nothing but argparse."""

import argparse
import math
from collections.abc import Callable, Sequence


class Flag:
    """How a constructor's argument is set from the command line: ``beta: Annotated[float, Flag("--beta", ...)] = 4.0``.

    Args:
        names: as typed by the user, ``"-l", "--linear-layers"``.
        type: converts the text, for example ``positive``; unused with ``choices`` and ``switch``.
        help: one line, with the symbol of the paper; the default is added from the constructor's signature.
        choices: the values that there are.
        switch: the flag takes no value and means True.
    """

    def __init__(
        self,
        *names: str,
        type: Callable[[str], object] = str,
        help: str = "",
        choices: Sequence[str] | None = None,
        switch: bool = False,
    ):
        self.names, self.type, self.help, self.choices, self.switch = names, type, help, choices, switch

    def add_to(self, group: argparse._ArgumentGroup, dest: str, help: str) -> None:
        """Add the argument; it is None where the user does not give it."""
        if self.switch:
            group.add_argument(*self.names, dest=dest, action="store_const", const=True, help=help)
        elif self.choices:
            group.add_argument(*self.names, dest=dest, choices=self.choices, help=help)
        else:
            metavar = self.names[-1].lstrip("-").upper().replace("-", "_")
            group.add_argument(*self.names, dest=dest, type=self.type, metavar=metavar, help=help)


def natural(text: str) -> int:
    """A whole number from 0."""
    return _whole(text, 0)


def positive(text: str) -> int:
    """A whole number from 1."""
    return _whole(text, 1)


def at_least_two(text: str) -> int:
    """A whole number from 2: the size of a sample that has a variance."""
    return _whole(text, 2)


def seed(text: str) -> int:
    """A whole number below 2³², which every library accepts as a seed."""
    value = natural(text)
    if value >= 2**32:
        raise argparse.ArgumentTypeError(f"expected a whole number below 4294967296, found {text}")
    return value


def positive_float(text: str) -> float:
    value = non_negative_float(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text}")
    return value


def non_negative_float(text: str) -> float:
    value = _float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"expected a number from 0, found {text}")
    return value


def probability(text: str) -> float:
    """A number from 0 to below 1, of dropout."""
    value = non_negative_float(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, found {text}")
    return value


def finite_float(text: str) -> float:
    value = _float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, found {text}")
    return value


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _whole(text: str, smallest: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = smallest - 1
    if value < smallest:
        raise argparse.ArgumentTypeError(f"expected a whole number from {smallest}, found {text}")
    return value

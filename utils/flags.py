"""A command-line flag as plain data, and the number types that flags take. Imports nothing but argparse."""

import argparse
import math
from collections.abc import Callable, Sequence


class Flag:
    """How a constructor's argument is set from the command line: ``beta: Annotated[float, Flag("β", positive)] = 4.0``.

    The flag has the name of the argument, ``--beta``.

    Args:
        help: one line, with the symbol of the paper; the default is added from the constructor's signature.
        type: converts the text, for example ``positive``; unused with ``choices`` and ``switch``.
        short: a second name, ``"-l"``.
        choices: the values that there are.
        switch: the flag takes no value and means True.
    """

    def __init__(
        self,
        help: str,
        type: Callable[[str], object] = str,
        short: str | None = None,
        choices: Sequence[str] | None = None,
        switch: bool = False,
    ):
        self.help, self.type, self.short, self.choices, self.switch = help, type, short, choices, switch

    def names(self, key: str) -> list[str]:
        """As typed by the user, the short one first, where ``key`` is the constructor's argument."""
        return [*([self.short] if self.short else []), "--" + key.replace("_", "-")]

    def add_to(self, group: argparse._ArgumentGroup, key: str, help: str) -> None:
        """Add the argument; it is None where the user does not give it."""
        if self.switch:
            group.add_argument(*self.names(key), dest=key, action="store_const", const=True, help=help)
        elif self.choices:
            group.add_argument(*self.names(key), dest=key, choices=self.choices, help=help)
        else:
            group.add_argument(*self.names(key), dest=key, type=self.type, metavar=key.upper(), help=help)


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

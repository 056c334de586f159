"""A command-line flag as plain data, and the number types that flags take. Imports nothing that is slow."""

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any

from utils.errors import UserError


class Flag:
    """How a constructor's argument is set from the command line: ``beta: Annotated[float, Flag("β", positive)] = 4.0``.

    The flag has the name of the argument, ``--beta``.

    Args:
        help: one line, with the symbol of the paper; the default is added from the constructor's signature.
        type: converts the text, for example ``positive``; unused with ``choices`` and ``switch``.
        short: a second name, ``"-l"``.
        switch: the flag takes no value and means True; ``--no-...`` means False.
        needs: another option, and those of its values with which this one has an effect: ``("prior", "gmm")``.
    """

    def __init__(
        self,
        help: str,
        type: Callable[[str], object] = str,
        short: str | None = None,
        choices: Sequence[str] | None = None,
        switch: bool = False,
        needs: tuple = (),
    ):
        self.help, self.type, self.short, self.choices, self.switch = help, type, short, choices, switch
        self.needs = needs

    def require(self, key: str, value: object) -> None:
        """Raises UserError where a value of the argument ``key``, of Python or a file, is none that the flag takes."""
        try:
            if choices := (False, True) if self.switch else self.choices:
                if value not in choices or type(value) not in map(type, choices):
                    raise argparse.ArgumentTypeError(f"expected {' or '.join(map(str, choices))}, found {value!r}")
            else:
                self.type(repr(value) if isinstance(value, str) else str(value))  # a number in quotes is none
        except argparse.ArgumentTypeError as error:
            raise UserError(f"{key}: {error}") from None

    def names(self, key: str) -> list[str]:
        """As typed by the user, the short one first, where ``key`` is the constructor's argument."""
        return [*([self.short] if self.short else []), "--" + key.replace("_", "-")]

    def add_to(self, group: argparse._ArgumentGroup, key: str, help: str) -> None:
        """Add the argument; it is None where the user does not give it."""
        if self.switch:
            group.add_argument(*self.names(key), dest=key, action=argparse.BooleanOptionalAction, help=help)
        elif self.choices:
            group.add_argument(*self.names(key), dest=key, choices=self.choices, help=help)
        else:
            group.add_argument(*self.names(key), dest=key, type=self.type, metavar=key.upper(), help=help)


def number(kind: type, allowed: Callable[[Any], bool], expected: str) -> Callable[[str], Any]:
    """A ``type`` of argparse: the text as ``kind``, refused where that fails or the value is not ``allowed``."""

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan  # nowhere allowed
        if not allowed(value):
            raise argparse.ArgumentTypeError(f"expected {expected}, found {text}")
        return value

    return convert


LARGEST = 2**31  # exclusive: of two such numbers the product still is one for PyTorch
natural = number(int, lambda value: 0 <= value < LARGEST, f"a whole number from 0 to below {LARGEST}")
positive = number(int, lambda value: 1 <= value < LARGEST, f"a whole number from 1 to below {LARGEST}")
POSITIVE = Flag("a size or a count", positive)
# A sample that has a variance.
at_least_two = number(int, lambda value: 2 <= value < LARGEST, f"a whole number from 2 to below {LARGEST}")
seed = number(int, lambda value: 0 <= value < 2**32, "a whole number from 0 to below 4294967296")  # as libraries take
dpi = number(int, lambda value: 1 <= value <= 2400, "a whole number from 1 to 2400")  # as printers have
positive_float = number(float, lambda value: 0 < value < math.inf, "a number above 0")
non_negative_float = number(float, lambda value: 0 <= value < math.inf, "a number from 0")
probability = number(float, lambda value: 0 <= value < 1, "a number from 0 to below 1")
finite_float = number(float, math.isfinite, "a number")


def add_figures(group: argparse._ArgumentGroup, grids: bool = False) -> None:
    """How figures are written; ``grids``: grids of images as well."""
    what = "of figures; pdf and svg can be enlarged, images in them stay the pixels that they are"
    group.add_argument("--format", choices=("png", "pdf", "svg"), default="png", help=what)
    what = "pixels per inch of figures; images are enlarged by whole factors"
    group.add_argument("--dpi", type=dpi, default=150, help=what)
    if grids:
        group.add_argument("--bare", action="store_true", help="grids of images without words, gaps and originals")

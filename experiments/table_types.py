"""What the published tables are made of: rows, the calls of scripts that fill them, and what was published."""

from dataclasses import dataclass, field
from typing import Any

Flags = dict[str, Any]
FULL_EPOCHS = 100  # of --epochs at the full budget; --epochs E scales every other number of epochs by E / 100


@dataclass(frozen=True)
class Cell:
    """One call of a script, and the metrics it gives to its row."""

    script: str = "evaluate.py"
    flags: Flags = field(default_factory=dict)  # except those of files, data and seed
    epochs: int | None = None  # its own --epochs at the full budget, where the budget scales them
    min_epochs: int = 1  # how far down they are scaled
    rename: dict[str, str] = field(default_factory=dict)  # metric of the script -> name of the table's column


@dataclass(frozen=True)
class Row:
    """A row of a table; its curve and position in the figure: without ``x`` the figure has bars."""

    label: str
    train: Flags | None  # flags of train.py; None where nothing is trained before the cells
    cells: tuple[Cell, ...] = (Cell(),)
    series: str = ""
    x: float | None = None


@dataclass(frozen=True)
class Table:
    """A published table. Numbers are from the IRMAE paper's supplement unless the title says otherwise."""

    title: str
    dataset: str | None  # of the publication; --dataset asks for another. None: the rows say
    rows: tuple[Row, ...]
    columns: tuple[str, ...]  # metrics; "fid_", "kid_" stand for the chosen features
    figure: tuple[str, ...]  # the columns that are drawn
    axis: str = ""
    published: dict[str, tuple[float | None, ...]] = field(default_factory=dict)  # column -> a number for each row
    # ("falls" or "rises", metric) from row to row; ("inside", metric): the smallest is neither first nor last
    claims: tuple[tuple[str, str], ...] = ()
    published_train: Flags = field(default_factory=dict)  # flags that only its own data set takes
    epochs: int = FULL_EPOCHS  # of its trainings at the full budget
    batch_size: int | None = None  # of its trainings; None: --batch-size
    positions: tuple[float, ...] = ()  # of the figure's columns on the axis, where a row is a curve through them

    def epochs_at(self, epochs: int) -> int:
        """The epochs of its trainings with ``--epochs``."""
        return max(1, round(self.epochs * epochs / FULL_EPOCHS))

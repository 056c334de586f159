"""What the columns of a table are: named or not, the label, features, row numbers."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from utils.errors import UserError

MISSING = {"", "?", "na", "n/a", "null", "none"}
LABEL_NAME = re.compile("(is)?(labels?|class|target|anomaly|anomalous|outlier|groundtruth|attack|fraud)")
INDEX_NAME = re.compile(r"^([Ii]ndex|[Rr]ow|INDEX|ROW|(.*[\W_])?id)$|I[dD]$")
NAMELESS = "Unnamed: "  # pandas calls a column without a name so, and adds its position
MIN_ROWS = 10  # fewer do not tell whether a column counts the rows, or repeats the label


def is_number(cell: str) -> bool:
    """Whether a cell reads as a number; NaN and infinity do, so that they are reported where they stand."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def is_missing(cell: str) -> bool:
    return cell.strip().lower() in MISSING


def letters(name: str) -> str:
    return "".join(filter(str.isalpha, name.lower()))


def is_label_name(name: str) -> bool:
    """Whether a column of that name holds labels: "Label", "is_anomaly", "ground truth" ..."""
    return LABEL_NAME.fullmatch(letters(name)) is not None


def is_header(rows: Sequence[list[str]]) -> bool:
    """Whether the first row counts the columns, from 0 or 1 on, or has words above numbers, or the name of a label."""
    first, *below = rows
    numbers = [float(cell) for cell in first if is_number(cell)]
    counts = len(numbers) > 2 and numbers in (list(range(len(numbers))), list(range(1, len(numbers) + 1)))
    if all(is_number(cell) or is_missing(cell) for cell in first):
        return counts
    if not numbers and any(map(is_number, below[0])):
        return True
    if not counts and any(is_number(cell) and not cell.strip().isdigit() for cell in first):
        return False  # names are words, counts and years
    for name, *cells in zip(first, *(row for row in below if len(row) == len(first)), strict=True):
        values = [cell for cell in cells if not is_missing(cell)]
        if is_label_name(name) and name not in values:
            return True
        if not is_number(name) and not is_missing(name) and values and all(map(is_number, values)):
            return True
    return False


def find(frame: pd.DataFrame, name: str, flag: str, path: Path) -> str:
    """The column that a flag names. Raises UserError where there is none."""
    near = [column for column in map(str, frame) if column.strip().lower() == name.strip().lower()]
    if not near:
        raise UserError(f"{flag} {name}: {path} has no such column, expected one of {shown(list(map(str, frame)))}")
    return name if name in near else near[0]


def shown(names: Sequence[str]) -> str:
    """The names, or of many the first ones and the last."""
    return ", ".join(names) if len(names) <= 50 else f"{', '.join(names[:20])}, ..., {names[-1]}"


def anomalous(labels: pd.Series) -> list | None:
    """Those of the values of a column of labels that say "anomaly"; None where they are no labels."""
    values = labels.unique().tolist()
    if all(is_number(str(value)) for value in values):
        return [value for value in values if float(value) == 1] if {*map(float, values)} <= {0.0, 1.0} else None
    words = {value: str(value).strip().lower().rstrip(".") for value in values}
    if "normal" in words.values():
        return [value for value in values if words[value] != "normal"]
    pair = next((pair for pair in (("true", "false"), ("yes", "no")) if {*words.values()} <= {*pair}), None)
    return [value for value in values if words[value] == pair[0]] if pair else None


def choose_label(frame: pd.DataFrame, label: str | None, ignored: Sequence[str], path: Path) -> str:
    """The column of labels: ``label``, or the one named so, or the last one or one named y; UserError for several.

    Empty where no column is named so and none holds labels, and for the label "none".
    """
    if label is None and path.suffix.lower() in (".npz", ".mat"):
        return "y" if "y" in frame else ""
    if label == "none" and label not in frame:
        return ""
    if label is not None:
        return find(frame, label, "--label", path)
    columns = [column for column in map(str, frame) if column not in ignored] or list(map(str, frame))
    named = [column for column in columns if is_label_name(column)]
    y = [column for column in columns if letters(column) == "y" and anomalous(frame[column]) is not None]
    candidates = list(dict.fromkeys(named or (y + columns[-1:])))
    usable = [column for column in candidates if anomalous(frame[column]) is not None]
    if len(usable) > 1:
        raise UserError(
            f"{path}: columns {' and '.join(usable)} could each be the label: say which with --label COLUMN, and leave "
            "the others out with --ignore COLUMN where they follow from it"
        )
    return (usable or [*named, ""])[0]


def read_labels(labels: pd.Series, path: Path) -> np.ndarray:
    """``(N,)`` bool, True for an anomaly. Raises UserError for what are no labels."""
    anomalies = anomalous(labels)
    if anomalies is None:
        found = sorted(f"{value:g}" if isinstance(value, float) else str(value) for value in labels.unique().tolist())
        raise UserError(
            f"{path}: no labels: expected 0 and 1, true and false, yes and no, or 'normal' and other words, in column "
            f"{labels.name}, found {len(found)} values: {', '.join(found[:3])}{', ...' * (len(found) > 3)}; "
            "without labels: --label none"
        )
    return labels.isin(anomalies).to_numpy()


def is_row_number(column: pd.Series, first: bool) -> bool:
    """Whether a column only tells rows apart: it has no name where others have, or all its values differ and it is
    named as one, holds words, or counts rows up or down; the ``first`` one may rise in other steps, or count shuffled.
    """
    name = str(column.name)
    if name.startswith(NAMELESS):
        return True
    if not column.is_unique or len(column) < MIN_ROWS:
        return False
    if isinstance(column.dtype, pd.CategoricalDtype):
        return True
    if (column != column.round()).any():
        return False
    steps = np.diff(column.to_numpy())
    rises = first and bool((steps > 0).all() or np.ptp(column) == len(column) - 1)
    return rises or bool((abs(steps) == 1).all()) or INDEX_NAME.search(name) is not None


def refuse_label_among(features: pd.DataFrame, label: str, anomaly: np.ndarray, path: Path) -> None:
    """Raises UserError for a feature of few values, each of which is found with one label only."""
    for column in map(str, features):
        values = features[column].nunique()
        few = len(features) >= 2 * MIN_ROWS and 2 <= values <= len(features) // MIN_ROWS
        if label and few and len(set(zip(features[column], anomaly, strict=True))) == values:
            raise UserError(
                f"{path}: column {column} repeats the label, column {label}: leave it out with --ignore {column}, or "
                f"say that it is the label with --label {column}"
            )

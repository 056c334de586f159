"""A labelled table of numbers and words: what of a file's columns is used, its halves, and its vectors."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data.table_columns import choose_label, find, is_row_number, read_labels, refuse_label_among, shown
from utils import files
from utils.errors import UserError


@dataclass(frozen=True)
class Table:
    """A labelled table."""

    features: pd.DataFrame  # (N, P + Q): P float64 columns, finite, then Q categorical columns of words
    anomaly: np.ndarray  # (N,) bool
    header: bool = False  # whether the file names its columns; otherwise they are called by their position, from 1
    label: str = ""  # the column that ``anomaly`` is made of
    left_out: dict[str, list[str]] = field(default_factory=dict)  # names of other columns of the file, by the reason

    def __len__(self) -> int:
        return len(self.anomaly)

    def describe(self) -> str:
        """What is used of the file, in a line."""
        left_out = "".join(f"; left out: {shown(names)} ({why})" for why, names in self.left_out.items() if names)
        header = "columns by the names in row 1" if self.header else "no row of names, columns by position"
        names = list(map(str, self.features))
        return f"{header}; label: {self.label}; {len(names)} features: {shown(names)}{left_out}"

    @property
    def numbers(self) -> pd.DataFrame:
        return self.features.select_dtypes("number")

    @property
    def words(self) -> pd.DataFrame:
        return self.features.select_dtypes("category")

    def rows(self, index: np.ndarray) -> "Table":
        return replace(self, features=self.features.iloc[index], anomaly=self.anomaly[index])

    def fingerprint(self) -> str:
        """Twelve letters that change with the data: runs on an older version of a file are not counted."""
        words = [column.cat for _, column in self.words.items()]
        levels = [column.categories.tolist() for column in words]
        codes = np.array([column.codes for column in words], dtype=np.int32).T
        parts = repr(levels).encode(), self.numbers.to_numpy().tobytes(), codes.tobytes(), self.anomaly.tobytes()
        return files.fingerprint(b"".join(parts))


def as_table(
    frame: pd.DataFrame,
    header: bool,
    path: Path,
    label: str | None = None,
    ignore: Sequence[str] = (),
    published: bool = False,
) -> Table:
    """The table of a file's columns. Of a ``published`` one all but the label are features; see ``tabular.load``."""
    ignored = [find(frame, name, "--ignore", path) for name in ignore]
    label = choose_label(frame, label, ignored, path)
    if label in ignored:
        raise UserError(f"--ignore {label}: this column is the label: choose another one with --label COLUMN")
    anomaly = read_labels(frame[label], path)
    features = frame.drop(columns=[label, *ignored])
    numbers: list[str] = []
    if not published:
        numbers = [name for name in map(str, features) if is_row_number(features[name], name == frame.columns[0])]
        features = features.drop(columns=numbers)
        refuse_label_among(features, label, anomaly, path)
    if anomaly.all() or not anomaly.any():
        found = f"anomaly ratio {'1: every' if anomaly.any() else '0: no'} row is labelled as an anomaly"
        raise UserError(f"{path}: {found}, but F1 needs both kinds; check the labels")
    features = pd.concat([features.select_dtypes("number"), features.select_dtypes("category")], axis=1)
    return Table(features, anomaly, header, label, {"tells rows apart": numbers, "--ignore": ignored})


def without_constants(table: Table, source: str, drop_constant: bool) -> Table:
    """The table without its constant columns. Raises UserError where there are some, unless asked to drop them."""
    numbers = table.numbers
    constant = [name for name in map(str, numbers) if np.ptp(numbers[name]) == 0]
    if constant and not drop_constant:
        found = f"column {constant[0]} is constant ({numbers[constant[0]].iloc[0]:g} in every row)"
        more = f", and {len(constant) - 1} more" if len(constant) > 1 else ""
        raise UserError(f"{source}: {found}{more}: remove it, or go on without it with --drop-constant")
    features = table.features.drop(columns=constant)
    table = replace(table, features=features, left_out=table.left_out | {"constant": constant})
    if features.empty:
        raise UserError(f"{source}: no column varies, so there is nothing to learn from ({table.describe()})")
    return table


def halves(table: Table, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of a random training and test half (RaDOGAGA, section 5.3); UserError where one lacks either kind."""
    order = np.random.default_rng(seed).permutation(len(table))
    test, train = np.split(order, [len(order) // 2])
    if not table.anomaly[test].any() or table.anomaly[test].all() or table.anomaly[train].all():
        raise UserError(
            f"seed {seed}: of {len(table)} rows, {int(table.anomaly.sum())} of them anomalies, a random half lacks "
            "normal rows or anomalies: give more rows"
        )
    return train, test


class Scaler:
    """Turns rows of a table into vectors: max-min normalised numbers, then one-hot words, as in the fitted rows.

    A column of numbers that is constant there becomes 0; a word that does not occur there, zeros in its block.
    """

    def __init__(self, table: Table):
        from sklearn.preprocessing import MinMaxScaler, OneHotEncoder  # slow to import: not for --help

        numbers = table.numbers.to_numpy()
        self.minmax = MinMaxScaler().fit(numbers) if numbers.shape[1] else None
        self.onehot = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32).fit(table.words)

    def __call__(self, table: Table) -> Tensor:
        """``(N, D)`` float32; in [0, 1] for the rows that were fitted."""
        blocks = [self.onehot.transform(table.words)] if table.words.shape[1] else []
        if self.minmax is not None:
            scaled = self.minmax.transform(table.numbers.to_numpy())
            scaled[:, self.minmax.data_range_ == 0] = 0
            blocks.insert(0, scaled.astype(np.float32))
        return torch.from_numpy(np.ascontiguousarray(np.concatenate(blocks, axis=1)))

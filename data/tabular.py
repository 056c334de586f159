"""Tables for anomaly detection: the published ones and files of one's own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from data.table import Table, as_table, without_constants
from data.table_files import SUFFIXES, read_frame
from utils.errors import UserError

# Files that are looked for in --data-path and its folder "tabular", the archives' own names first.
FILES = {
    "kddcup": ("kddcup.data_10_percent.gz", "kddcup.data_10_percent", "kddcup.csv", "kddcup.npz"),
    "thyroid": ("thyroid.npz", "thyroid.mat", "thyroid.csv"),
    "arrhythmia": ("arrhythmia.mat", "arrhythmia.npz", "arrhythmia.csv"),
}
DATASETS = {
    "kddcup": "connections of KDD Cup 99 (10 %): 494,021, 'normal' being the rare class",
    "kddcup-rev": "the same, with attacks drawn so that they are the rare class: 121,597",
    "thyroid": "ODDS: 3,772 patients, 6 numbers, 2.5 % hyperfunction",
    "arrhythmia": "ODDS: 452 patients, 274 numbers, 15 % rare classes",
}
SIZES = {"kddcup": (494_021, 41, 396_743), "thyroid": (3_772, 6, 93), "arrhythmia": (452, 274, 66)}  # and labels
SOURCES = {
    "kddcup": "http://kdd.ics.uci.edu/databases/kddcup99/kddcup99.html",
    "thyroid": "https://odds.cs.stonybrook.edu/thyroid-disease-dataset/",
    "arrhythmia": "https://odds.cs.stonybrook.edu/arrhythmia-dataset/",
}


def load(
    name: str,
    path: str | Path = "./datasets",
    drop_constant: bool = False,
    label: str | None = None,
    ignore: Sequence[str] = (),
) -> Table:
    """A data set of ``DATASETS``, or a file of one's own.

    Args:
        name: a row of ``DATASETS``, or the path of a file that ``table_files.read_frame`` reads.
        path: of a published table: a file, or the folder that has it (or has it in its folder ``tabular``).
        drop_constant, label, ignore: of one's own file: leave constant columns out instead of refusing it; the column
            that says which rows are anomalies (default: see ``choose_label``), or "none"; columns to leave out.

    Raises UserError for no such file, or one that cannot be used.
    """
    path = Path(path)
    if name not in DATASETS:
        if not name.lower().endswith(SUFFIXES):
            known = ", ".join(DATASETS)
            raise UserError(f"--dataset {name}: expected {known}, or a file that ends in {', '.join(SUFFIXES)}")
        return without_constants(
            as_table(*read_frame(Path(name), ignore), Path(name), label, ignore), name, drop_constant
        )
    for flag, given in (("--label", label), ("--ignore", " ".join(ignore))):
        if given:
            raise UserError(f"{flag} {given}: for a file of your own; the columns of {name} are known: leave it out")
    base = name.removesuffix("-rev")
    candidates = [folder / file for folder in (path, path / "tabular") for file in FILES[base]]
    found = path if path.is_file() else next((file for file in candidates if file.is_file()), None)
    if found is None and base != "kddcup":
        lacking = f"none of {', '.join(FILES[base])} there, nor in its folder tabular"
        raise UserError(f"--data-path {path}: {lacking}; get it from {SOURCES[base]}")
    frame, header = (download_kddcup(path), True) if found is None else read_frame(found)
    table = as_table(frame, header, found or path, published=True)
    if (size := (len(table), table.features.shape[1], int(table.anomaly.sum()))) != SIZES[base]:
        theirs, its = (f"{n:,} rows, {k} features, {a:,} rows labelled" for n, k, a in (size, SIZES[base]))
        advice = f"get it from {SOURCES[base]}, or give a table of your own by --dataset FILE"
        raise UserError(f"{found or path}: not {base}: found {theirs}, expected {its}; {advice}")
    if name == "kddcup":
        # Attacks are four fifths of this file, so the field's convention (DAGMM, section 4.1) calls them normal.
        table = replace(table, anomaly=~table.anomaly)
    elif name == "kddcup-rev":
        normal, attack = np.flatnonzero(~table.anomaly), np.flatnonzero(table.anomaly)
        # Part of what the data set is, so the same for every run: hence a seed of its own.
        drawn = np.random.default_rng(0).choice(attack, min(len(attack), len(normal) // 4), replace=False)
        table = table.rows(np.sort(np.concatenate([normal, drawn])))
    return table  # some of its columns are constant, and the published widths count them


def download_kddcup(path: Path) -> pd.DataFrame:
    """KDD Cup 99 (10 %) through scikit-learn, which keeps it under ``path``."""
    from sklearn.datasets import fetch_kddcup99

    try:
        frame = fetch_kddcup99(data_home=str(path), percent10=True, as_frame=True).frame
    except Exception as error:  # no network, a folder that cannot be written, or a damaged cache of scikit-learn
        found = f"no {FILES['kddcup'][0]} there, and it could not be downloaded ({error})"
        raise UserError(f"--data-path {path}: {found}; get it from {SOURCES['kddcup']}") from error

    def decoded(column: pd.Series) -> pd.Series:
        if isinstance(column.iloc[0], bytes):
            return column.str.decode("ascii").astype("category")
        return column.astype(np.float64)

    return pd.DataFrame({name: decoded(frame[name]) for name in frame})

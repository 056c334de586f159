"""Readers of tabular data: what the archives ship and what users break."""

import gzip
import hashlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
import torch

from data import array_files, tabular
from data.base import VectorDataset
from data.table import Scaler, Table, as_table, from_ranges, halves, ranges
from data.table_files import read_frame
from utils.errors import UserError

GOOD = "1,tcp,5,normal.\n2,udp,7,attack.\n3,tcp,9,normal.\n"


def write(path, text):
    path.write_text(text)
    return path


def read(path, *flags) -> Table:
    return as_table(*read_frame(path), path, *flags)


def same(one: Table, other: Table) -> bool:
    return one.features.equals(other.features) and np.array_equal(one.anomaly, other.anomaly)


def test_text_with_words_and_worded_labels(tmp_path):
    table = read(write(tmp_path / "t.csv", GOOD))
    np.testing.assert_array_equal(table.numbers, [[1, 5], [2, 7], [3, 9]])
    assert table.words["2"].tolist() == ["tcp", "udp", "tcp"]
    np.testing.assert_array_equal(table.anomaly, [False, True, False])
    assert list(table.features) == ["1", "3", "2"]


def test_gzip_windows_line_ends_byte_order_mark_and_blank_lines_change_nothing(tmp_path):
    plain = read(write(tmp_path / "t.csv", GOOD))
    with gzip.open(tmp_path / "t.data.gz", "wt") as stream:
        stream.write(GOOD)
    (tmp_path / "w.csv").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    assert same(plain, read(tmp_path / "t.data.gz"))
    assert same(plain, read(tmp_path / "w.csv"))


def test_a_header_names_the_columns_and_the_label(tmp_path):
    table = read(write(tmp_path / "t.csv", "label,age,height\n0,1,2\n1,3,4\n"))
    assert list(table.features) == ["age", "height"]
    np.testing.assert_array_equal(table.numbers, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(table.anomaly, [False, True])


def test_arrays_of_odds(tmp_path):
    x, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 4 == 0
    np.savez(tmp_path / "t.npz", X=x, y=y.astype(int))
    scipy.io.savemat(tmp_path / "t.mat", {"X": x, "y": y[:, None].astype(np.uint8)})
    one, other = read(tmp_path / "t.npz"), read(tmp_path / "t.mat")
    assert same(one, other)
    np.testing.assert_array_equal(one.numbers, x)
    np.testing.assert_array_equal(one.anomaly, y)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,0\n3,nan,1\n", r"line 2, column 2 is nan"),
        ("a,b,y\n1,2,0\n3,-inf,1\n", r"line 3, column b is -inf"),
        ("a,b,y\n1,2,0\n3,-1e300,1\n", r"line 3, column b is -1e\+300, expected a magnitude below 1e\+150"),
        ("1,2,0\n3,?,1\n", r"line 2, column 2: the value is missing"),
        ("1,x,0\n3,,1\n", r"line 2, column 2: the value is missing"),
        ("1,2,0\n3,4,\n", r"line 2, column 3: the value is missing"),
        ("1,2,0\n3,four,1\n", r"line 2, column 2: expected a number as in the column's first row, found 'four'"),
        ("1,2,0\n3,1\n", r"line 2 has 2 values, the first has 3"),
        ("1,2,0\n\n3,x,1\n", r"line 3, column 2: expected a number"),
        (
            "a,b,label\n1,2,0\n3,4,5\n6,7,8\n",
            r"no labels: expected 0 and 1, .* or 'normal'.* column label, found 3 values: 0, 5, 8.*--label none",
        ),
        ("a,class\n2,good\n4,bad\n", r"no labels"),
        ("1,2,0\n,4,1\n,5,1\n", r"line 2, column 1: the value is missing .*, and 1 more of this column"),
        ("a,b,y\n1,2,0\n,4,1\n5,?,0\n5,x,1\n", r"line 3, column a: the value is missing.*; .* also in b; fill"),
        ("1\n2\n3\n", r"separated by commas, found one"),
        ("a;y\n1;0\n2;1\n", r"separated by commas, found semicolons: save it with commas"),
        ("a\ty\n1\t0\n", r"separated by commas, found tabs"),
        ("1,2,0\n", r"at least two rows, found 1"),
        ("", r"at least two rows, found 0"),
        ("1,2,0\n1,3,0\n", r"anomaly ratio 0"),
        ("1,2,1\n1,3,1\n", r"anomaly ratio 1"),
        ("5,2,0\n5,3,1\n", r"column 1 is constant \(5 in every row\).*--drop-constant"),
    ],
)
def test_mistakes_are_named_where_they_stand(tmp_path, text, message):
    path = write(tmp_path / "t.csv", text)
    with pytest.raises(UserError, match=message) as caught:
        tabular.load(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": [[1.0, 2], [np.nan, 4]], "y": [0, 1]}, "row 2, column 1 is nan"),
        ({"data": [[1.0]]}, "expected arrays X .* found data"),
        ({"X": [[1.0, 2], [3, 4]], "y": [0, 1, 0]}, "X has 2 rows but y has 3 labels"),
        ({"X": [1.0, 2], "y": [0, 1]}, "expected X as a matrix"),
        ({"X": [["a"], ["b"]], "y": [0, 1]}, "expected X as a matrix"),
    ],
)
def test_mistakes_in_arrays(tmp_path, arrays, message):
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(UserError, match=message):
        tabular.load(str(tmp_path / "t.npz"))


@pytest.mark.parametrize("name", ["t.npz", "t.mat", "t.csv", "t.gz"])
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x93\xff\x00\x01 this is no such file" * 20)
    with pytest.raises(UserError, match=name):
        tabular.load(str(tmp_path / name))


def test_a_truncated_gzip_file_is_named(tmp_path):
    (tmp_path / "t.gz").write_bytes(gzip.compress(GOOD.encode() * 500)[:-20])
    with pytest.raises(UserError, match=r"t\.gz.*damaged"):
        tabular.load(str(tmp_path / "t.gz"))


def test_missing_files_say_where_to_get_them(tmp_path):
    with pytest.raises(UserError, match=r"thyroid\.npz.*https://odds"):
        tabular.load("thyroid", tmp_path)
    with pytest.raises(UserError, match="found none"):
        tabular.load(str(tmp_path / "mine.csv"))
    with pytest.raises(UserError, match=r"expected kddcup.*or a file that ends in"):
        tabular.load("thyrod", tmp_path)


def test_labels_that_pandas_writes(tmp_path):
    table = read(write(tmp_path / "t.csv", "one,outlier\n1,True\n2,False\n3,False\n"))
    np.testing.assert_array_equal(table.anomaly, [True, False, False])
    table = read(write(tmp_path / "t.csv", "one,outlier\n1,No\n2,yes\n3,No\n"))
    np.testing.assert_array_equal(table.anomaly, [False, True, False])


def test_constant_columns_are_left_out_on_request_only(tmp_path):
    path = write(tmp_path / "t.csv", "5,2,0\n5,3,1\n5,4,0\n")
    assert list(tabular.load(str(path), drop_constant=True).features) == ["2"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "thyroid",
            GOOD,
            "found 3 rows, 3 features, 1 rows labelled, expected 3,772 rows, 6 features, 93 rows",
        ),
        ("arrhythmia", "1,2\n3,5\n", "2 rows, 2 features, 0 rows labelled, expected 452 rows, 274 features, 66 rows"),
        ("kddcup", GOOD, "expected 494,021 rows, 41 features, 396,743 rows labelled; get it from http"),
        ("kddcup-rev", GOOD, "not kddcup: found 3 rows, .*, or give a table of your own by --dataset FILE"),
    ],
)
def test_a_table_of_another_size_is_not_the_published_one(tmp_path, name, text, words):
    for path in (write(tmp_path / f"{name.removesuffix('-rev')}.csv", text), tmp_path):
        with pytest.raises(UserError, match=rf"{name.removesuffix('-rev')}\.csv: .*{words}"):
            tabular.load(name, path)


def test_the_rare_class_of_kddcup_is_normal_and_of_its_reverse_the_attacks(tmp_path, monkeypatch):
    monkeypatch.setitem(tabular.SIZES, "kddcup", (1000, 2, 800))
    lines = [f"{i},tcp,{'normal.' if i % 5 == 0 else 'smurf.'}" for i in range(1000)]
    write(tmp_path / "kddcup.csv", "\n".join(lines))
    table = tabular.load("kddcup", tmp_path)
    np.testing.assert_array_equal(table.anomaly, table.numbers["1"] % 5 == 0)
    reverse = tabular.load("kddcup-rev", tmp_path)
    assert len(reverse) == 250
    assert reverse.anomaly.mean() == 0.2
    np.testing.assert_array_equal(reverse.anomaly, reverse.numbers["1"] % 5 != 0)
    assert same(reverse, tabular.load("kddcup-rev", tmp_path))


def test_scaling_knows_the_fitted_rows_only():
    numbers = pd.DataFrame({"1": [0.0, 4, 8], "2": [7.0, 7, 9], "3": [10.0, 30, 20]})
    words = pd.DataFrame({"4": ["a", "c", "b"], "5": ["y", "y", "x"]}).astype("category")
    table = Table(pd.concat([numbers, words], axis=1), np.array([0, 0, 1], bool))
    scale = Scaler(table.rows(np.array([0, 1])))
    # (v - 0) / 4, a constant column as 0, (v - 10) / 20; then "a", "c" and "y", the words of the first two rows.
    expected = [[0, 0, 0, 1, 0, 1], [1, 0, 1, 0, 1, 1], [2, 0, 0.5, 0, 0, 0]]
    np.testing.assert_allclose(scale(table).numpy(), expected)
    assert scale(table).dtype == torch.float32
    for part in (numbers, words):
        alone = Table(part, table.anomaly)
        assert len(Scaler(alone)(alone)) == 3


def test_the_fingerprint_is_that_of_runs_made_before(tmp_path):
    table = read(write(tmp_path / "t.csv", GOOD))
    content = repr([["tcp", "udp"]]).encode() + np.array([[1, 5], [2, 7], [3, 9]], np.float64).tobytes()
    content += np.array([[0], [1], [0]], np.int32).tobytes() + table.anomaly.tobytes()
    assert table.fingerprint() == hashlib.sha256(content).hexdigest()[:12]


def test_halves_are_disjoint_complete_and_the_seeds_own():
    table = Table(pd.DataFrame({"1": np.zeros(101)}), np.arange(101) % 5 == 0)
    train, test = halves(table, 3)
    assert len(test) == 50
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(101))
    np.testing.assert_array_equal(halves(table, 3)[1], test)
    assert not np.array_equal(halves(table, 4)[1], test)
    lonely = Table(table.features[:2], np.array([True, False]))
    with pytest.raises(UserError, match="a random half lacks"):
        [halves(lonely, seed) for seed in range(20)]


def test_vectors_keep_the_data_set_contract():
    vectors = torch.arange(20.0).reshape(10, 2)
    dataset = VectorDataset(vectors, torch.arange(10))
    assert len(dataset) == 10
    assert [len(batch) for batch in dataset.batches(4)] == [4, 4, 2]
    torch.testing.assert_close(torch.cat(list(dataset.batches(3))), vectors)
    shuffled = dataset[dataset.order(torch.Generator().manual_seed(0))]
    assert sorted(shuffled[:, 0].tolist()) == vectors[:, 0].tolist()
    torch.testing.assert_close(dataset[torch.tensor([3, 1])], vectors[[3, 1]])
    assert dataset.first(4).labels.tolist() == [0, 1, 2, 3]


ROWS = np.random.default_rng(0).normal(size=(40, 3)).round(3)
LABELS = (np.arange(40) % 4 == 0).astype(int)


def csv_of(path, header, *columns, numbered_from=None):
    """Three features and further columns; ``header`` is None or the names of all columns."""
    rows = [[*row, *more] for row, *more in zip(ROWS.tolist(), *columns, strict=True)]
    if numbered_from is not None:
        rows = [[numbered_from + number, *row] for number, row in enumerate(rows)]
    return write(path, "".join(",".join(map(str, row)) + "\n" for row in ([header] if header else []) + rows))


@pytest.mark.parametrize(
    ("header", "numbered_from"),
    [
        (["", "a", "b", "c", "label"], 0),
        (["Unnamed: 0", "a", "b", "c", "label"], 5),
        (["id", "a", "b", "c", "label"], 1),
        (["0.0", "1.0", "2.0", "label"], None),
        (["number", "a", "b", "c", "label"], 1),
        (["", "0", "1", "2", "label"], 0),
        (["", "0", "1", "2", "3"], 0),
        (["0", "1", "2", "label"], None),
        (["0", "1", "2", "3"], None),
        (["1", "2", "3", "4"], None),
        (["2019", "2020", "2021", "failed"], None),
        (None, 0),
        (None, 1),
    ],
)
def test_any_header_and_any_leading_column_of_row_numbers(tmp_path, header, numbered_from):
    path = csv_of(tmp_path / "t.csv", header, LABELS, numbered_from=numbered_from)
    table = tabular.load(str(path))
    np.testing.assert_array_equal(table.numbers.to_numpy(), ROWS)
    np.testing.assert_array_equal(table.anomaly, LABELS)
    said = table.describe()
    assert all(f"{name}" in said for name in table.features) and f"label: {table.label};" in said
    assert ("(tells rows apart)" in said) == (numbered_from is not None)


def test_shuffled_row_numbers_in_front_are_left_out_whole_numbers_elsewhere_are_not(tmp_path):
    order = np.random.default_rng(1).permutation(40)
    header = ["", "a", "b", "c", "label"]
    path = csv_of(tmp_path / "t.csv", header, LABELS, numbered_from=0)
    lines = path.read_text().splitlines()
    write(path, "\n".join([lines[0], *(lines[1 + row] for row in order)]) + "\n")
    assert list(tabular.load(str(path)).features) == ["a", "b", "c"]
    named = [f"P{number}" for number in order]
    for name, values in (("patient_id", order), ("SampleID", order), ("when", named), ("down", range(39, -1, -1))):
        path = csv_of(tmp_path / "t.csv", ["a", "b", "c", name, "label"], values, LABELS)
        assert list(tabular.load(str(path)).features) == ["a", "b", "c"]
    for name, values in (("count", order), ("acid", order), ("id", order // 2)):
        path = csv_of(tmp_path / "t.csv", ["a", "b", "c", name, "label"], values, LABELS)
        assert list(tabular.load(str(path)).features) == ["a", "b", "c", name]


def test_a_first_row_of_values_is_no_header(tmp_path):
    for first in ("1,2,0", "0,1,1", "0.5,a,0", "5,6,0"):
        path = write(
            tmp_path / "t.csv", f"{first}\n" + "".join(f"{i * i},{first.split(',')[1]},{i % 2}\n" for i in range(9))
        )
        assert len(read(path)) == 10


def test_of_two_labels_one_is_asked_for_and_the_other_is_no_feature(tmp_path):
    kinds = np.where(LABELS == 1, np.where(np.arange(40) % 8 == 0, "dos", "probe"), "normal").tolist()
    path = csv_of(tmp_path / "t.csv", ["a", "b", "c", "class", "label"], kinds, LABELS)
    with pytest.raises(UserError, match=r"columns class and label could each be the label: .*--label COLUMN"):
        tabular.load(str(path))
    for label, other in (("label", "class"), ("CLASS", "label")):
        with pytest.raises(UserError, match=rf"column {other} repeats the label.*--ignore {other}"):
            tabular.load(str(path), label=label)
        table = tabular.load(str(path), label=label, ignore=[other])
        assert list(table.features) == ["a", "b", "c"] and (table.anomaly == LABELS).all()
        assert f"left out: {other} (--ignore)" in table.describe()
    headless = csv_of(tmp_path / "t.csv", None, kinds, LABELS)
    with pytest.raises(UserError, match="column 4 repeats the label, column 5"):
        tabular.load(str(headless))
    assert list(tabular.load(str(headless), label="4", ignore=["5"]).features) == ["1", "2", "3"]


def test_y_may_be_a_feature(tmp_path):
    half = (np.arange(40) // 3 % 2).tolist()
    path = csv_of(tmp_path / "t.csv", ["x", "v", "z", "y", "is_anomaly"], half, LABELS)
    table = tabular.load(str(path))
    assert table.label == "is_anomaly" and list(table.features) == ["x", "v", "z", "y"]
    with pytest.raises(UserError, match="columns y and failed could each be the label"):
        tabular.load(str(csv_of(tmp_path / "t.csv", ["x", "v", "z", "y", "failed"], half, LABELS)))
    assert tabular.load(str(csv_of(tmp_path / "t.csv", ["a", "b", "c", "y"], LABELS))).label == "y"


def test_a_table_may_have_no_labels(tmp_path):
    path = csv_of(tmp_path / "t.csv", ["a", "b", "c", "flag"], LABELS)
    np.savez(tmp_path / "t.npz", X=np.column_stack([ROWS, LABELS]))
    for table in (tabular.load(str(path), label="none"), tabular.load(str(tmp_path / "t.npz"))):
        assert not table.labelled and table.features.shape == (40, 4) and "label: none;" in table.describe()
        assert all(len(rows) == 40 for rows in halves(table, 0))
    assert tabular.load(str(path)).fingerprint() != tabular.load(str(path), label="none").fingerprint()
    kinds = ["red", "blue"] * 20
    table = tabular.load(str(csv_of(tmp_path / "t.csv", ["a", "b", "c", "kind"], kinds)))
    assert not table.labelled and list(table.features) == ["a", "b", "c", "kind"]


def test_columns_without_values_and_gaps_in_columns_that_are_ignored(tmp_path, capsys):
    lines = ["id,a,notes,gaps,label,"] + [f"P{i},{i * i % 7},,{'' if i == 3 else 'x'},{i % 2}," for i in range(12)]
    path = write(tmp_path / "t.csv", "\n".join(lines))
    with pytest.raises(UserError, match="line 5, column gaps: the value is missing"):
        tabular.load(str(path))
    table = tabular.load(str(path), ignore=["Gaps"])
    assert list(table.features) == ["a"] and table.label == "label" and table.keys["id"].tolist()[:2] == ["P0", "P1"]
    assert "column notes left out: it has no values" in capsys.readouterr().out
    assert table.rows(np.array([5])).keys["id"].tolist() == ["P5"]


def test_ranges_are_all_that_scaling_depends_on():
    numbers = pd.DataFrame({"1": [0.1, 4, 8], "2": [7.0, 7, 7]})
    words = pd.DataFrame({"3": ["a", "c", "b"], "4": ["y", "y", "y"]}).astype("category")
    for part in (numbers, words, pd.concat([numbers, words], axis=1)):
        table = Table(part, np.zeros(3, bool))
        torch.testing.assert_close(Scaler(from_ranges(ranges(table)))(table), Scaler(table)(table), rtol=0, atol=0)


def test_columns_that_are_named_must_be_there(tmp_path):
    path = csv_of(tmp_path / "t.csv", ["a", "b", "c", "label"], LABELS)
    with pytest.raises(UserError, match=r"--label d: .* expected one of a, b, c, label"):
        tabular.load(str(path), label="d")
    with pytest.raises(UserError, match=r"--ignore d: .* expected one of a, b, c, label"):
        tabular.load(str(path), ignore=["d"])
    with pytest.raises(UserError, match="--ignore label: this column is the label"):
        tabular.load(str(path), label="label", ignore=["label"])
    with pytest.raises(UserError, match="--label y: for a file of your own"):
        tabular.load("thyroid", tmp_path, label="y")


def test_sparse_arrays(tmp_path):
    x = np.where(ROWS > 0, ROWS, 0)
    scipy.io.savemat(tmp_path / "t.mat", {"X": scipy.sparse.csc_matrix(x), "y": LABELS[:, None]})
    table = tabular.load(str(tmp_path / "t.mat"))
    np.testing.assert_array_equal(table.numbers, x)
    np.testing.assert_array_equal(table.anomaly, LABELS)


def test_kddcup_is_downloaded_where_it_is_not(tmp_path, monkeypatch):
    frame = pd.DataFrame({"duration": [1, 2, 3], "protocol_type": [b"tcp", b"udp", b"tcp"]}, dtype=object)
    frame["labels"] = [b"normal.", b"smurf.", b"smurf."]
    monkeypatch.setattr("sklearn.datasets.fetch_kddcup99", lambda **_: SimpleNamespace(frame=frame))
    monkeypatch.setitem(tabular.SIZES, "kddcup", (3, 2, 2))
    table = tabular.load("kddcup", tmp_path)
    assert table.numbers["duration"].tolist() == [1, 2, 3]
    assert table.words["protocol_type"].tolist() == ["tcp", "udp", "tcp"]
    assert table.anomaly.tolist() == [True, False, False]


def test_a_column_without_values_can_be_ignored(tmp_path):
    path = write(tmp_path / "t.csv", "a,empty,label\n1.5,,0\n2.5,,1\n2,,0\n3,,1\n")
    assert list(tabular.load(str(path), label="label", ignore=["empty"]).features) == ["a"]
    assert array_files.read(path, "label", ["empty"]).names == ["a"]


def test_a_file_of_another_encoding_is_not_called_damaged_only(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("größe,y\n1,0\n2,1\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"not text in UTF-8, .*: save it as UTF-8"):
        read_frame(path)

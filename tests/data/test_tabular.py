"""Readers of tabular data: what the archives ship, what users break, and toy data whose density is known."""

import gzip

import numpy as np
import pytest
import scipy.io
import torch
from scipy.stats import multivariate_normal

from data import table_files, tabular
from utils.errors import UserError

GOOD = "1,tcp,5,normal.\n2,udp,7,attack.\n3,tcp,9,normal.\n"


def write(path, text):
    path.write_text(text)
    return path


def same(one: table_files.Table, other: table_files.Table) -> bool:
    return (
        np.array_equal(one.numbers, other.numbers)
        and np.array_equal(one.words, other.words)
        and one.levels == other.levels
        and np.array_equal(one.anomaly, other.anomaly)
    )


def test_text_with_words_and_worded_labels(tmp_path):
    table = table_files.read(write(tmp_path / "t.csv", GOOD))
    np.testing.assert_array_equal(table.numbers, [[1, 5], [2, 7], [3, 9]])
    assert table.levels == [["tcp", "udp"]]
    np.testing.assert_array_equal(table.words, [[0], [1], [0]])
    np.testing.assert_array_equal(table.anomaly, [False, True, False])
    assert table.columns == ["1", "3"]


def test_gzip_windows_line_ends_byte_order_mark_and_blank_lines_change_nothing(tmp_path):
    plain = table_files.read(write(tmp_path / "t.csv", GOOD))
    with gzip.open(tmp_path / "t.data.gz", "wt") as stream:
        stream.write(GOOD)
    (tmp_path / "w.csv").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    assert same(plain, table_files.read(tmp_path / "t.data.gz"))
    assert same(plain, table_files.read(tmp_path / "w.csv"))


def test_a_header_names_the_columns_and_the_label(tmp_path):
    table = table_files.read(write(tmp_path / "t.csv", "label,age,height\n0,1,2\n1,3,4\n"))
    assert table.columns == ["age", "height"]
    np.testing.assert_array_equal(table.numbers, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(table.anomaly, [False, True])


def test_text_longer_than_a_chunk_is_read_whole(tmp_path, monkeypatch):
    text = "".join(f"{i},{'ab'[i % 2]},{int(i % 7 == 0)}\n" for i in range(100))
    whole = table_files.read(write(tmp_path / "t.csv", text))
    monkeypatch.setattr(table_files, "ROWS_AT_A_TIME", 7)
    assert same(whole, table_files.read(tmp_path / "t.csv"))
    np.testing.assert_array_equal(whole.numbers[:, 0], np.arange(100))


def test_arrays_of_odds(tmp_path):
    x, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 4 == 0
    np.savez(tmp_path / "t.npz", X=x, y=y.astype(int))
    scipy.io.savemat(tmp_path / "t.mat", {"X": x, "y": y[:, None].astype(np.uint8)})
    one, other = table_files.read(tmp_path / "t.npz"), table_files.read(tmp_path / "t.mat")
    assert same(one, other)
    np.testing.assert_array_equal(one.numbers, x)
    np.testing.assert_array_equal(one.anomaly, y)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,0\n3,nan,1\n", r"row 2, column 2 is nan"),
        ("a,b,y\n1,2,0\n3,-inf,1\n", r"row 3, column b is -inf"),
        ("1,2,0\n3,?,1\n", r"row 2, column 2: the value is missing"),
        ("1,x,0\n3,,1\n", r"row 2, column 2: the value is missing"),
        ("1,2,0\n3,4,\n", r"row 2, column 3: the value is missing"),
        ("1,2,0\n3,four,1\n", r"row 2, column 2: expected a number as in the column's first row, found 'four'"),
        ("1,2,0\n3,1\n", r"row 2 has 2 values, the first row has 3"),
        ("1,2,0\n\n3,x,1\n", r"row 3, column 2: expected a number"),
        ("1,2,0\n3,4,5\n6,7,8\n", r"no labels: expected 0 and 1, .* or 'normal'.* column 3, found 3 values: 0, 5, 8"),
        ("1,2,good\n3,4,bad\n", r"no labels"),
        ("1\n2\n3\n", r"no labels"),
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
        ({"X": [[1.0, 2], [3, 4]]}, "no labels: expected arrays X"),
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
    table = table_files.read(write(tmp_path / "t.csv", "one,outlier\n1,True\n2,False\n3,False\n"))
    np.testing.assert_array_equal(table.anomaly, [True, False, False])


def test_a_large_text_file_is_parsed_once_and_again_when_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(tabular, "CACHED_FROM", 10)
    path = write(tmp_path / "t.csv", "one,word,label\n1,tcp,0\n2,udp,1\n3,tcp,0\n")
    first = tabular.load(str(path))
    with monkeypatch.context() as context:
        context.setattr(tabular, "read", lambda path: pytest.fail("parsed again"))
        again = tabular.load(str(path))
    assert same(first, again)
    assert first.columns == again.columns == ["one"]
    write(path, "one,word,label\n1,tcp,0\n2,udp,1\n33,tcp,0\n")
    assert tabular.load(str(path)).numbers[-1, 0] == 33


def test_constant_columns_are_left_out_on_request_only(tmp_path):
    path = write(tmp_path / "t.csv", "5,2,0\n5,3,1\n5,4,0\n")
    assert tabular.load(str(path), drop_constant=True).columns == ["2"]


def test_the_rare_class_of_kddcup_is_normal_and_of_its_reverse_the_attacks(tmp_path):
    lines = [f"{i},tcp,{'normal.' if i % 5 == 0 else 'smurf.'}" for i in range(1000)]
    write(tmp_path / "kddcup.csv", "\n".join(lines))
    table = tabular.load("kddcup", tmp_path)
    np.testing.assert_array_equal(table.anomaly, table.numbers[:, 0] % 5 == 0)
    reverse = tabular.load("kddcup-rev", tmp_path)
    assert len(reverse) == 250
    assert reverse.anomaly.mean() == 0.2
    np.testing.assert_array_equal(reverse.anomaly, reverse.numbers[:, 0] % 5 != 0)
    assert same(reverse, tabular.load("kddcup-rev", tmp_path))


def test_scaling_knows_the_fitted_rows_only():
    numbers = np.array([[0.0, 7, 10], [4, 7, 30], [8, 9, 20]])
    words = np.array([[0, 1], [2, 1], [1, 0]], dtype=np.int32)
    table = table_files.Table(numbers, words, [["a", "b", "c"], ["x", "y"]], np.array([0, 0, 1], bool), ["1", "2", "3"])
    scale = tabular.Scaler.fit(table.rows(np.array([0, 1])))
    # (v - 0) / 4, a constant column as 0, (v - 10) / 20; then "a", "c" and "y", the words of the first two rows.
    expected = [[0, 0, 0, 1, 0, 1], [1, 0, 1, 0, 1, 1], [2, 0, 0.5, 0, 0, 0]]
    np.testing.assert_allclose(scale(table).numpy(), expected)
    assert scale(table).dtype == torch.float32


def test_halves_are_disjoint_complete_and_the_seeds_own():
    table = table_files.Table(np.zeros((101, 1)), np.zeros((101, 0), np.int32), [], np.arange(101) % 5 == 0, ["1"])
    train, test = tabular.halves(table, 3)
    assert len(test) == 50
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(101))
    np.testing.assert_array_equal(tabular.halves(table, 3)[1], test)
    assert not np.array_equal(tabular.halves(table, 4)[1], test)
    lonely = table_files.Table(table.numbers[:2], table.words[:2], [], np.array([True, False]), ["1"])
    with pytest.raises(UserError, match="a random half lacks"):
        [tabular.halves(lonely, seed) for seed in range(20)]


def test_vectors_keep_the_data_set_contract():
    vectors = torch.arange(20.0).reshape(10, 2)
    dataset = tabular.VectorDataset(vectors, torch.arange(10))
    assert len(dataset) == 10
    assert [len(batch) for batch in dataset.batches(4)] == [4, 4, 2]
    torch.testing.assert_close(torch.cat(list(dataset.batches(3))), vectors)
    shuffled = dataset[dataset.order(torch.Generator().manual_seed(0))]
    assert sorted(shuffled[:, 0].tolist()) == vectors[:, 0].tolist()
    torch.testing.assert_close(dataset[torch.tensor([3, 1])], vectors[[3, 1]])
    assert dataset.first(4).labels.tolist() == [0, 1, 2, 3]


def test_generated_toy_data_is_an_isometric_lift_with_its_own_density():
    toy = tabular.generate_toy(5000, seed=1)
    vectors = toy.vectors.double().numpy()
    assert vectors.shape == (5000, 16)
    assert vectors.min() == 0
    assert vectors.max() == 1
    singular = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False)
    assert singular[3] < 1e-5 * singular[2]
    # In three principal coordinates, rescaled to the sources' units, the mixture is that of the sources.
    coordinates = (vectors - vectors.mean(axis=0)) @ np.linalg.svd(vectors - vectors.mean(axis=0))[2][:3].T
    first = coordinates[toy.component == 0]
    coordinates /= np.sqrt(np.trace(np.cov(first.T)) / 3)
    estimate = np.zeros(5000)
    for k, variance in enumerate(tabular.TOY_VARIANCES):
        own = coordinates[toy.component == k]
        np.testing.assert_allclose(np.cov(own.T), variance * np.eye(3), atol=0.12 * variance)
        estimate += multivariate_normal(own.mean(axis=0), variance * np.eye(3)).pdf(coordinates) / 3
    assert np.corrcoef(estimate, toy.density)[0, 1] > 0.995


def test_published_toy_layout(tmp_path):
    rng = np.random.default_rng(0)
    values = np.column_stack([rng.normal(size=(50, 16)), rng.random(50), rng.integers(0, 3, 50)])
    np.savetxt(tmp_path / "toy.csv", values, delimiter=",")
    toy = tabular.load_toy(tmp_path)
    inputs = values[:, :16]
    np.testing.assert_allclose(toy.vectors, (inputs - inputs.min()) / np.ptp(inputs), atol=1e-6)
    np.testing.assert_allclose(toy.density, values[:, 16])
    assert toy.component.tolist() == values[:, 17].tolist()
    (tmp_path / "toy.csv").write_text("1,2,3\n")
    with pytest.raises(UserError, match="row 1 has 3 values, expected 18"):
        tabular.load_toy(tmp_path)
    with pytest.raises(UserError, match=r"no toy\.csv"):
        tabular.load_toy(tmp_path / "elsewhere")

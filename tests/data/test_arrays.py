"""Arrays of one's own: what is read of a file, how it is split and scaled, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import scipy.io
import torch

import data
from data import array_files
from utils.errors import UserError

RNG = np.random.default_rng(0)
ROWS = 5 * RNG.standard_normal((200, 4)) + np.array([0, 10, -3, 1e3])


def load(path, part="train", **file):
    return data.load(data.name_of_file(str(path)), part, path, file=file)


@pytest.fixture
def csv(tmp_path):
    """A function that writes columns as a CSV file."""

    def write(columns: dict, name: str = "own.csv"):
        pd.DataFrame(columns).to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return write


def test_the_same_rows_from_every_kind_of_file(tmp_path, csv):
    names = ["a", "b", "c", "d"]
    np.save(tmp_path / "own.npy", ROWS)
    np.savez(tmp_path / "own.npz", X=ROWS)
    scipy.io.savemat(tmp_path / "own.mat", {"ut": ROWS, "dt": 0.25})  # the only array of rows, whatever its name
    paths = [csv(dict(zip(names, ROWS.T, strict=True)), name) for name in ("own.csv", "own.csv.gz")]
    for path in (*paths, *(tmp_path / f"own.{ending}" for ending in ("npy", "npz", "mat"))):
        every = load(path, "all", scale="none")
        assert torch.equal(every[:], torch.from_numpy(ROWS).float()), path
        assert every.labels is None
    assert array_files.read(paths[0]).names == names


def test_scaling_is_that_of_the_training_rows_and_has_an_inverse(tmp_path):
    np.save(tmp_path / "own.npy", ROWS)
    train, test = (load(tmp_path / "own.npy", split) for split in ("train", "test"))
    mean, deviation = ROWS[train.rows].mean(axis=0), ROWS[train.rows].std(axis=0)
    assert np.allclose(test[:], (ROWS[test.rows] - mean) / deviation, atol=1e-5)
    assert np.allclose(test.to_units(test[:]), ROWS[test.rows], rtol=1e-5)
    assert torch.equal(test.from_units(ROWS[test.rows]), test[:])
    ranged = load(tmp_path / "own.npy", scale="max-min")[:]
    assert torch.allclose(ranged.amin(dim=0), torch.zeros(4)) and torch.allclose(ranged.amax(dim=0), torch.ones(4))
    with pytest.raises(UserError, match="shape"):
        test.from_units(ROWS[:, :3])


def test_fields_are_scaled_by_channel_and_keep_their_shape(tmp_path):
    fields = RNG.standard_normal((50, 2, 32, 32)) * np.array([1, 100]).reshape(2, 1, 1) + 7
    np.save(tmp_path / "own.npy", fields)
    described = data.arrays.describe(tmp_path / "own.npy", "conv", data.arrays.OPTIONS)
    assert described == {"architecture": "field-32", "image_size": 32, "channels": 2, "latent_dim": 32}
    train = data.load("own-npy", "train", tmp_path / "own.npy", None, 32, 2)
    assert train[:].shape == (len(train), 2, 32, 32)
    assert train[:].mean(dim=(0, 2, 3)).abs().max() < 1e-5
    assert torch.allclose(train[:].var(dim=(0, 2, 3), unbiased=False), torch.ones(2), atol=1e-4)
    assert np.allclose(train.to_units(train[:]), fields[train.rows], rtol=1e-4, atol=1e-4)
    flat = load(tmp_path / "own.npy")
    assert flat[:].shape == (len(train), 2048) and torch.equal(flat[:], train[:].flatten(1))


def test_rows_stay_in_their_part_when_others_are_added(tmp_path):
    np.save(tmp_path / "own.npy", ROWS)
    before = {name: set(load(tmp_path / "own.npy", name).rows) for name in ("train", "valid", "test")}
    assert sum(map(len, before.values())) == len(ROWS) and len(before["train"]) > 140
    np.save(tmp_path / "own.npy", np.concatenate([ROWS, RNG.standard_normal((100, 4))]))
    for name, rows in before.items():
        assert rows <= set(load(tmp_path / "own.npy", name).rows)


def test_by_time_the_last_rows_are_the_test(tmp_path):
    np.save(tmp_path / "own.npy", ROWS)
    parts = [load(tmp_path / "own.npy", name, split="time").rows.tolist() for name in ("train", "valid", "test")]
    assert parts == [list(range(160)), list(range(160, 180)), list(range(180, 200))]


def test_what_is_used_of_a_table_is_printed(csv, capsys):
    """Row numbers and ignored columns are left out, a constant column becomes 0, words are a label."""
    columns = {"id": np.arange(200), "a": ROWS[:, 0], "b": 7.5, "c": ROWS[:, 1], "Class": ["x", "y"] * 100}
    path = csv(columns)
    train = load(path, ignore=["C"])
    assert train.names == ["a", "b"] and train.classes == ["x", "y"]
    assert torch.equal(train.labels, torch.from_numpy(train.rows % 2))
    assert train[:][:, 1].abs().max() == 0 and np.allclose(train.to_units(train[:])[:, 1], 7.5)
    drawn = train.to_units(train.restore_constants(train[:] + 0.1))  # a network's outputs, which are not zero exactly
    assert (drawn[:, 1] == 7.5).all() and np.allclose(drawn[:, 0], train.to_units(train[:] + 0.1)[:, 0])
    assert (
        "200 rows of 2 columns; columns a, b; 1 of 2 values constant (every mean counts them); left out id"
        in capsys.readouterr().out
    )
    np.savez(path.with_suffix(".npz"), X=ROWS, y=np.arange(200) % 3)
    assert load(path.with_suffix(".npz")).classes == ["0", "1", "2"]
    np.savez(path.with_suffix(".npz"), X=ROWS, y=ROWS[:, 0])  # values to predict are no classes
    assert load(path.with_suffix(".npz")).labels is None


@pytest.mark.parametrize(
    ("columns", "file", "words"),
    [
        ({"a": ROWS[:, 0], "city": ["Rome", "Oslo"] * 100}, {}, ["column city", "'Rome'", "--ignore city"]),
        ({"a": [1.5, np.nan] * 100, "b": ROWS[:, 0]}, {}, ["line 3, column a", "missing"]),
        ({"a": ROWS[:9, 0], "b": ROWS[:9, 1]}, {}, ["9 rows", "at least 10"]),
        ({"a": ROWS[:, 0], "b": ROWS[:, 1]}, {"label": "c"}, ["--label c", "no such column", "a, b"]),
        ({"a": ROWS[:, 0], "b": ROWS[:, 1]}, {"label": "b"}, ["label b", "whole numbers"]),
        ({"a": ROWS[:, 0], "b": ROWS[:, 1]}, {"ignore": ["a", "b"]}, ["no column of numbers is left"]),
        ({"a": ROWS[:, 0], "b": ROWS[:, 1] * 1e30}, {"scale": "none"}, ["--scale none", "e+3", "float32"]),
    ],
)
def test_tables_that_cannot_be_used(csv, columns, file, words):
    with pytest.raises(UserError) as error:
        load(csv(columns), **file)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": ROWS, "b": ROWS}, ["array X", "a float64 (200, 4)"]),
        ({"X": ROWS[:, 0]}, ["array X", "(200,)"]),
        ({"X": ROWS, "y": np.zeros(7)}, ["200 rows", "7 labels"]),
        ({"X": np.where(ROWS[3, 2] == ROWS, np.inf, ROWS)}, ["row 4, column 3", "inf"]),
        ({"X": ROWS * 1e300}, ["row 1, column 1", "magnitude below 1e+150"]),
        ({"X": ROWS + 1j}, ["complex128"]),
        ({"X": np.array([{}], dtype=object)}, ["cannot be read"]),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path, arrays, words):
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(UserError) as error:
        load(tmp_path / "own.npz")
    assert all(word in str(error.value) for word in words), error.value


def test_options_and_networks_belong_to_files_or_to_images(tmp_path):
    np.save(tmp_path / "own.npy", ROWS)
    for arch, words in (("conv", "square fields"), ("wae", "network of images")):
        with pytest.raises(UserError, match=words):
            data.arrays.describe(tmp_path / "own.npy", arch, data.arrays.OPTIONS)
    with pytest.raises(UserError, match="--scale none: of a file"):
        data.file_options("mnist", {"scale": "none"})
    with pytest.raises(UserError, match="--image-size 64: of images"):
        data.file_options("own-npy", {"image_size": 64})
    with pytest.raises(UserError, match="expected a file"):
        load(tmp_path / "other.csv")


def test_labels_of_a_cell_array_are_words_and_endings_may_be_capital(tmp_path):
    words = np.array(["low", "high"] * 100, dtype=object)
    scipy.io.savemat(tmp_path / "OWN.MAT", {"X": ROWS, "y": words})
    dataset = load(tmp_path / "OWN.MAT", "all")
    assert dataset.classes == ["high", "low"] and dataset.labels.tolist() == [1, 0] * 100


def test_what_does_not_vary_in_training_is_refused(tmp_path):
    values = np.array(ROWS)
    values[:185, 1] = 3.5
    np.save(tmp_path / "own.npy", values)
    with pytest.raises(UserError, match="column 2 varies outside of the training rows only: --ignore it"):
        load(tmp_path / "own.npy", split="time")
    np.save(tmp_path / "own.npy", np.full((200, 3), 3.5))
    with pytest.raises(UserError, match="no column varies in the training rows, so there is nothing to learn from"):
        load(tmp_path / "own.npy")


def test_a_constant_channel_is_restored_in_fields_and_vectors(tmp_path):
    fields = RNG.standard_normal((60, 2, 4, 4))
    fields[:, 1] = -2.5
    np.save(tmp_path / "own.npy", fields)
    for channels, size in ((2, 4), (32, 0)):
        dataset = data.load("own-npy", "train", tmp_path / "own.npy", None, size, channels)
        drawn = dataset.to_units(dataset.restore_constants(dataset[:] + 0.1))
        assert (drawn[:, 1] == -2.5).all() and not np.isclose(drawn[:, 0], fields[dataset.rows][:, 0]).any()

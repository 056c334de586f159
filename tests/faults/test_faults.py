"""Real faults, a sample of each kind in about a minute; ``make faults`` tries many more (tests/faults/long.py)."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ENVIRONMENT, ROOT, run_script
from faults import damage
from faults.harness import Kill, call, lines_of

from experiments import fid_features
from utils import checkpoint, errors, files

SMALL = ("--arch", "mlp", "-n", 3, "--train-size", 40, "--valid-size", 20, "--batch-size", 16, "--epochs", 2)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return damage.make_good(tmp_path_factory.mktemp("good"))


@pytest.mark.parametrize("name", damage.SEMANTIC)
def test_a_checkpoint_with_other_content_is_refused(good, tmp_path, name):
    """By --resume, and by one of the evaluation scripts."""
    number = 1 + list(damage.SEMANTIC).index(name) % len(damage.EVALUATIONS)
    for which in (0, number):
        case = damage.semantic(tmp_path, good["trained"] / "digits" / "m", name, which)
        for script, *arguments in case.calls:
            outcome = call(script, *arguments)
            assert outcome.status == 2 and outcome.problem() is None, outcome
            assert str(tmp_path / "digits" / "m") in outcome.errors[0], outcome


def test_every_evaluation_refuses_an_infinite_moment_and_names_the_earlier_run(good, tmp_path):
    case = damage.semantic(tmp_path, good["trained"] / "digits" / "m", "an infinite second moment", 0)
    previous = tmp_path / "digits" / "previous"
    previous.mkdir()
    for stamp in ("m-20200101-000000", "other-20200101-000000", "m-20200102-000000"):
        shutil.copy(good["trained"] / "digits" / "m", previous / stamp)
    (previous / "m-20200103-000000").write_bytes(b"PK damaged")
    os.utime(previous / "m-20200101-000000", (1, 1))
    for which in range(1 + len(damage.EVALUATIONS)):
        ((script, *arguments),) = damage.checkpoint_calls(tmp_path, which)
        outcome = call(script, *arguments)
        assert outcome.status == 2 and f"good one is {previous / 'm-20200102-000000'}" in outcome.err, outcome
    assert case.must_refuse


def test_damaged_inputs(good, tmp_path):
    """80 of the seeded generator: no traceback, hang or crash, nothing broken is taken for good."""
    for number, case in enumerate(damage.cases(tmp_path / "case", good, 80, seed=1)):
        for script, *arguments in case.calls:
            outcome = call(script, *arguments)
            assert outcome.problem() is None, (number, case, outcome)
            assert outcome.status == 2 or not case.must_refuse, (number, case, outcome)
            assert outcome.status != 0 or case.harmless(), (number, case, outcome)


def trained_by(*arguments):
    outcome = call("train", *arguments)
    assert outcome.status == 0, outcome


def content(folder, name):
    """Weights, metrics without seconds, the CSV's rows and the curves of a run."""
    from experiments.logs import Logs

    path = folder / "digits" / name
    record = checkpoint.load(path)
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in record["metrics"]]
    table = path.with_name(f"{name}.csv").read_text().count("\n")
    curves = {key: value for key, value in Logs(path).scalars().items() if key[0] != "seconds"}
    return record["weights"], rows, table, curves


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_training_that_is_killed_at_any_line_loses_nothing(good, tmp_path, number):
    flags = ("--dataset", "digits", "--vae", *SMALL, "--checkpoint")
    trained_by(*flags, tmp_path / "whole")
    lines = lines_of("train", *flags, tmp_path / "counted", start="fit")
    rng = np.random.default_rng(int(number))
    for line in rng.integers(1, lines, 2):
        folder = tmp_path / str(line)
        outcome = call("train", *flags, folder, before=Kill(int(line), number, "fit"))
        assert outcome.status in (-number, 128 + number, 0) and "Traceback" not in outcome.err, outcome
        trained_by(*flags, folder, "--resume")
        for found, whole in zip(content(folder, "vae"), content(tmp_path / "whole", "vae"), strict=True):
            assert damage.same(found, whole)
        assert not [file for file in folder.rglob(".*") if file.is_file()]


# --- disks


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 32 MB: room for a checkpoint of 10 MB and the next one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount a file system")
    yield place
    subprocess.run(["umount", "-l", place], check=False)


def temporaries(folder):
    return list(folder.rglob(f"{files.TEMPORARY}*"))


def test_a_full_disk(small_disk, good, tmp_path):
    """Train, decode, evaluate: one line, exit status 1, no file half-written; with room the run goes on."""
    flags = ("--dataset", "digits", "--vae", *SMALL, "--checkpoint", small_disk / "c")
    rest = small_disk / "rest"
    trained_by(*flags, "--epochs", 1)
    before = (small_disk / "c" / "digits" / "vae").read_bytes()
    rest.write_bytes(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize))
    outcome = call("train", *flags, "--resume")
    assert outcome.status == 1 and outcome.problem() is None and "No space left" in outcome.err, outcome
    assert (small_disk / "c" / "digits" / "vae").read_bytes() == before and not temporaries(small_disk)
    shown = ("--dataset", "digits", "--checkpoint", small_disk / "c", "--save-path", small_disk / "r")
    outcome = call("singular", *shown)
    assert outcome.status == 1 and outcome.problem() is None and "No space left" in outcome.err, outcome
    assert not temporaries(small_disk)
    rest.unlink()
    trained_by(*flags, "--resume")
    (small_disk / "big").write_bytes(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize - 60_000))
    shutil.copytree(good["pictures"] / "pictures", tmp_path / "p" / "pictures", ignore=shutil.ignore_patterns(".cache"))
    (tmp_path / "p" / "pictures" / ".cache").symlink_to(small_disk / "cache")
    (small_disk / "cache").mkdir()
    sizes = ("--image-size", 128, "--channels", 3)
    outcome = call("train", *damage.folder_flags(tmp_path / "p"), *sizes)
    assert outcome.status == 1 and outcome.problem() is None and "No space left" in outcome.err, outcome
    assert not list((small_disk / "cache").iterdir())


def test_a_disk_that_is_full_only_for_the_logs(good, tmp_path, monkeypatch):
    """The checkpoint is written, TensorBoard's file is not: one line, and the next --resume completes it."""
    from experiments.logs import Logs

    shutil.copytree(good["trained"], tmp_path, dirs_exist_ok=True)
    expected = Logs(tmp_path / "digits" / "m").scalars()
    shutil.rmtree(tmp_path / "digits" / "tensorboard")
    (tmp_path / "digits" / "tensorboard").write_text("in the way")
    flags = ("--dataset", "digits", "--checkpoint", tmp_path, "--model-name", "m", "--resume")
    outcome = call("train", *flags, "--epochs", 3)
    assert outcome.status == 2 and outcome.problem() is None and "tensorboard" in outcome.err, outcome
    (tmp_path / "digits" / "tensorboard").unlink()
    trained_by(*flags)
    assert expected.items() <= Logs(tmp_path / "digits" / "m").scalars().items()


def test_what_a_killed_process_left_is_removed_and_what_is_written_is_not(tmp_path):
    (tmp_path / f"{files.TEMPORARY}abandoned").write_bytes(b"half")
    with files.replacing(tmp_path / "a") as mine:
        mine.write_text("mine")
        child = subprocess.run(
            [sys.executable, "-c", f"from utils.files import *; write_text(Path({str(tmp_path / 'b')!r}), 'b')"],
            cwd=ROOT, env=ENVIRONMENT, check=True,
        )  # fmt: skip
        assert child.returncode == 0 and mine.exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


def test_a_checkpoint_that_is_a_link_stays_one(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").symlink_to("elsewhere/file")
    files.write_text(tmp_path / "here", "1")
    files.write_text(tmp_path / "here", "2")
    assert (tmp_path / "here").is_symlink() and (tmp_path / "elsewhere" / "file").read_text() == "2"
    os.utime(tmp_path / "elsewhere" / "file", (1e9, 1e9))
    kept = checkpoint.archive_previous_run(tmp_path / "here")
    assert kept.read_text() == "2" and not (tmp_path / "here").exists()


# --- memory and sizes


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("train", ("-n", 10**12)),
        ("train", ("-n", 10**9)),
        ("train", ("--batch-size", 10**25)),
        ("train", ("--train-size", 10**30)),
        ("generation", ("-X", 10**6, "-Y", 10**6, "--task", "mvg")),
        ("generation", ("-X", 10**6, "-Y", 10**6, "--task", "pca")),
        ("generation", ("-X", 10**6, "-Y", 10**6, "--task", "prior")),
        ("evaluate", ("--fid-samples", 10**12)),
        ("density", ("--size", 2 * 10**9)),
    ],
)
def test_absurd_sizes(good, tmp_path, script, flags):
    def limit():  # as ulimit -v
        resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, resource.RLIM_INFINITY))

    files_of = ("--checkpoint", tmp_path) if script == "train" else ("--checkpoint", good["trained"])
    common = () if script == "density" else ("--dataset", "digits", *files_of)
    more = () if script == "train" else ("--save-path", tmp_path)
    outcome = call(script, *common, *more, *flags, before=limit)
    assert outcome.status in (1, 2) and outcome.problem() is None, outcome
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_what_says_that_memory_is_lacking():
    for create in (lambda: torch.empty(2**50), lambda: np.empty(2**50), lambda: torch.empty(2**62, 2**62)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            create()
        assert errors.exhausted(caught.value)
    assert errors.exhausted(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


# --- names, streams, images


def test_streams_that_are_closed_or_ascii(good, tmp_path):
    """Nothing that is printed reaches a file, no name or symbol ends a run."""
    flags = ("--dataset", "digits", "--checkpoint", str(good["trained"]), "--save-path", str(tmp_path))
    command = " ".join([sys.executable, str(ROOT / "isometry.py"), *flags, "--test-size 20 --num-pairs 10"])
    for redirection, environment in (
        ("2>&- >&- <&-", ENVIRONMENT),
        ("> out", ENVIRONMENT | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}),
    ):
        done = subprocess.run(["sh", "-c", f"{command} {redirection}"], cwd=tmp_path, env=environment, check=False)
        assert done.returncode == 0
        assert json.loads((tmp_path / "digits" / "isometry" / "m.json").read_text())
    assert "\\u03b4" in (tmp_path / "out").read_text()


def test_names_that_are_no_text(good, tmp_path):
    damage.pictures(tmp_path / "pictures")
    odd = os.fsencode(tmp_path / "pictures") + b"/\xff\n.png"
    with open(odd, "wb") as stream:
        stream.write(b"damaged")
    outcome = call("train", *damage.folder_flags(tmp_path))
    assert outcome.status == 2 and outcome.problem() is None and len(outcome.err.splitlines()) == 1, outcome
    assert call("train", *damage.folder_flags(tmp_path), "--skip-corrupt").status == 0
    for flags in (("--model-name", "a\nb"), ("--checkpoint", os.fsdecode(b"\xff")), ("--model-name", "")):
        outcome = call("train", "--dataset", "digits", *flags)
        assert outcome.status == 2 and outcome.problem() is None, outcome


def test_only_decode_errors_are_remembered(good, tmp_path, monkeypatch):
    """A pipe does not hang; a file that may not be read now is no corrupt one."""
    from data import decoding

    damage.pictures(tmp_path / "pictures")
    os.mkfifo(tmp_path / "pictures" / "x.png")
    assert call("train", *damage.folder_flags(tmp_path)).status == 2
    opened = decoding.open_image

    def forbidden(file):
        if file.name == "3.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return opened(file)

    monkeypatch.setattr(decoding, "open_image", forbidden)
    outcome = call("train", *damage.folder_flags(tmp_path), "--skip-corrupt")
    assert outcome.status == 2 and "3.png: Permission denied" in outcome.err and outcome.problem() is None, outcome
    monkeypatch.setattr(decoding, "open_image", opened)
    outcome = call("train", *damage.folder_flags(tmp_path), "--skip-corrupt")
    assert outcome.status == 0 and "skipped" in outcome.err + outcome.out and "1 of 13 images" in outcome.out, outcome


# --- caches and divergence


def test_a_damaged_classifier_is_trained_again(good, tmp_path, monkeypatch):
    monkeypatch.setattr(fid_features, "MIN_STEPS", 12)
    monkeypatch.setattr(fid_features, "EPOCHS", 1)
    shutil.copytree(good["trained"], tmp_path, dirs_exist_ok=True)
    flags = ("--dataset", "digits", "--checkpoint", tmp_path, "--model-name", "m", "--save-path", tmp_path / "r")
    more = ("--features", "classifier", "--samplers", "mvg", "--fid-samples", 20, "--test-size", 20)

    def distances():
        outcome = call("evaluate", *flags, *more)
        assert outcome.status == 0, outcome
        (row,) = json.loads((tmp_path / "r" / "digits" / "evaluate" / "m.json").read_text())
        return outcome.out, row["fid_cls_mvg"]

    _, expected = distances()
    (file,) = (tmp_path / "features").glob("*.pt")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    out, found = distances()
    assert f"{file}: this classifier is damaged" in out and found == pytest.approx(expected, rel=1e-6)
    assert "is damaged" not in distances()[0]


def test_a_signal_right_after_the_step_that_diverged(good, tmp_path, monkeypatch):
    """Neither infinite weights nor infinite moments replace the good checkpoint."""
    from utils import loop

    flags = ("--dataset", "digits", "--vae", *SMALL, "--checkpoint", tmp_path)
    trained_by(*flags, "--epochs", 1)
    before = (tmp_path / "digits" / "vae").read_bytes()
    step, what = loop.Step.__call__, [""]

    def blow_up(self, index):
        losses = step(self, index)
        state = self.optimizer.state[self.parameters[0]]
        (self.parameters[0].data if what == ["weights"] else state["exp_avg_sq"]).fill_(torch.inf)
        signal.raise_signal(signal.SIGTERM)
        return losses

    monkeypatch.setattr(loop.Step, "__call__", blow_up)
    for what[0] in ("weights", "moments"):
        outcome = call("train", *flags, "--resume")
        assert outcome.status == 3 and outcome.problem() is None and "last good state" in outcome.err, outcome
        assert (tmp_path / "digits" / "vae").read_bytes() == before


def test_a_mat_file_that_claims_too_much(tmp_path):
    import zlib

    from data import unpacking

    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    body = zlib.compress(np.array([14, 2**32 - 8], "<u4").tobytes() + bytes(1000))
    element = np.array([15, len(body)], "<u4").tobytes() + body
    (tmp_path / "bomb.mat").write_bytes(head + 2 * element)
    with pytest.raises(errors.UserError, match="claims to hold"):
        unpacking.check(tmp_path / "bomb.mat")


def test_an_interrupted_script_says_what_it_wrote(good, tmp_path):
    flags = ("--dataset", "digits", "--checkpoint", good["trained"], "--model-name", "m", "--save-path", tmp_path)
    lines = lines_of("isometry", *flags, "--test-size", 20, "--num-pairs", 10)
    outcome = call("isometry", *flags, "--test-size", 20, "--num-pairs", 10, before=Kill(lines - 3, signal.SIGINT))
    assert outcome.status == 130 and "interrupted; written: " in outcome.err and "m-traverse.png" in outcome.err
    outcome = call("isometry", *flags, before=Kill(20, signal.SIGINT))
    assert outcome.status == 130 and "written: nothing" in outcome.err
    assert run_script("isometry.py", *flags, "--model-name", "none").status == 2


def test_a_mat_file_that_ends_its_reader(tmp_path):
    """An element of an unknown type: SciPy's reader crashes, the script does not."""
    content = bytearray(damage.table_files(np.random.default_rng(0))["cell.mat"])
    content[176:192] = bytes(16)
    (tmp_path / "t.mat").write_bytes(content)
    outcome = call("anomaly", "--dataset", tmp_path / "t.mat", "--save-path", tmp_path)
    assert outcome.status == 2 and outcome.problem() is None and "t.mat" in outcome.errors[0], outcome

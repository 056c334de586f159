"""What the tests share: calling a script as a user would, and small trained checkpoints to call it on."""

import importlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}

import torch  # noqa: E402  (after the path, like everything of the repository)

torch.set_num_threads(1)  # the test networks are too small for more


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@dataclass
class Result:
    status: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.out.strip().splitlines()[-1]


def run_script(script: str, *arguments: object, cwd: Path | None = None) -> Result:
    """A script in a process of its own."""
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=cwd or ROOT, timeout=300)
    return Result(done.returncode, done.stdout, done.stderr)


def start_script(script: str, *arguments: object) -> subprocess.Popen:
    """A script in the background, its output unbuffered, to be interrupted.

    It would inherit what the tests ignore: Ctrl-C where a shell started them in the background, SIGHUP under nohup.
    """
    command = [sys.executable, "-u", str(ROOT / script), *map(str, arguments)]

    def heed() -> None:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, **pipes, env=ENVIRONMENT, preexec_fn=heed)


@pytest.fixture
def call(monkeypatch, capsys):
    """Call a script's ``main`` in this process, as ``cli.run`` does: fast, for the many cases of bad input."""
    from utils import cli

    def run(script: str, *arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        capsys.readouterr()
        status = 0
        try:
            cli.run(importlib.import_module(script.removesuffix(".py").replace("/", ".")).main)
        except SystemExit as end:
            status = end.code or 0
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A checkpoint folder with ae, irmae and vae trained on digits by the published flags: to be read, not changed."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trained"
    common = ("--dataset", "digits", "--epochs", 2, "--lr", 1e-3, "-n", 16, "--train-size", 480, "--checkpoint", folder)
    each = [("ae", ("-l", 0)), ("irmae", ("-l", 2)), ("vae", ("--vae",))]
    turn = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % len(each)
    folder.mkdir(exist_ok=True)
    for name, flags in each[turn:] + each[:turn]:  # each by one of the workers, which begin with different ones
        with FileLock(folder / f"{name}.lock"):
            if not (folder / "digits" / f"{name}.csv").exists():  # written last
                result = run_script("train.py", *flags, *common)
                assert result.status == 0, result.err
    return folder


def assert_refused(result: Result, *words: str) -> None:
    """Exit status 2, and one line on standard error that holds the words and is no traceback."""
    assert result.status == 2, (result.status, result.out, result.err)
    lines = result.err.strip().splitlines()
    assert len(lines) == 1 and "error:" in lines[0], result.err
    for word in words:
        assert str(word) in lines[0], (word, lines[0])

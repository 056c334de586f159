"""Scripts in forked processes that have everything imported: each may crash, hang or be killed, at no cost of a start.

``Kill`` ends such a process at a chosen line of the repository's code.
"""

import contextlib
import importlib
import io
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from conftest import ROOT

from utils import cli


@dataclass
class Outcome:
    """How a script ended. ``status`` below 0: by that signal; None: it had to be killed after ``limit`` seconds."""

    status: int | None
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if "error:" in line]

    def problem(self) -> str | None:
        """What no input may cause; None where there is none."""
        if self.status is None:
            return "hang"
        if self.status < 0:
            return f"crash by signal {-self.status}"
        if "Traceback" in self.err + self.out:
            return "traceback"
        if self.status not in (0, 1, 2, 3):
            return f"status {self.status}"
        if self.status and len(self.errors) != 1:
            return f"{len(self.errors)} error lines"
        return None


def call(script: str, *arguments: object, before: Callable[[], None] = lambda: None, limit: float = 300) -> Outcome:
    """Run ``script`` (without .py) in a fork of this process, after ``before()``."""
    main = importlib.import_module(script).main
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
                sys.argv = [f"{script}.py", *map(str, arguments)]
                sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
                sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
                torch.set_num_threads(1)
                before()
                cli.run(main)
                status = 0
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 0
            except BaseException:
                sys.settrace(None)
                traceback.print_exc()
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                os._exit(status)
        deadline = time.monotonic() + limit
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.005)
        if ended[0] == 0:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        status = None if ended[0] == 0 else os.waitstatus_to_exitcode(ended[1])
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    return Outcome(status, *texts)


def call_here(script: str, *arguments: object) -> None:
    """Run a script in this process, which must succeed: what it imports when it needs it, every fork then has."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    argv, sys.argv = sys.argv, [f"{script}.py", *map(str, arguments)]
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            cli.run(importlib.import_module(script).main)
    except SystemExit as end:
        raise AssertionError((script, arguments, text.getvalue())) from end
    finally:
        sys.argv = argv
        for number, handler in handlers.items():
            signal.signal(number, handler)


class Kill:
    """``before`` of ``call``: send this process a signal at the ``line``-th line of the repository that it runs.

    Lines are counted from the first call of the function ``start`` on, or from the beginning; without a line they are
    counted only, into ``file``.
    """

    def __init__(self, line: int | None, number: int = signal.SIGKILL, start: str = "", file: Path | None = None):
        self.line, self.number, self.start, self.file, self.count = line, number, start, file, 0

    def __call__(self) -> None:
        sys.settrace(self.trace)

    def trace(self, frame, event: str, argument: object):
        code = frame.f_code
        if not code.co_filename.startswith(str(ROOT)) or "/tests/" in code.co_filename:
            return None
        if self.start in ("", code.co_name):
            self.start = ""
        elif code.co_name not in ("main", "train"):  # on the way to it: nothing else is traced
            return None
        if event == "line" and not self.start:
            self.count += 1
            if self.count == self.line:
                os.kill(os.getpid(), self.number)
        elif event == "return" and self.file is not None and code.co_name == "main":
            self.file.write_text(str(self.count))
        return self.trace


def lines_of(script: str, *arguments: object, start: str = "") -> int:
    """How many lines of the repository a call runs, from the function ``start`` on. It must succeed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "count"
        outcome = call(script, *arguments, before=Kill(None, start=start, file=file))
        assert outcome.status == 0, outcome
        return int(file.read_text())

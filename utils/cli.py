"""The command line: every flag that more than one script takes, and how a script ends."""

import argparse
import difflib
import errno
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from utils import files
from utils.errors import Diverged, UserError, exhausted
from utils.flags import at_least_two, natural, non_negative_float, positive, positive_float, seed  # noqa: F401

USERS_MISTAKES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows a default only where there is one to show; keeps the lines of an epilog."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = action.default is not None and action.default is not False and action.default not in ("", [])
        return super()._get_help_string(action) if shown else action.help


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors that suggest the flag that was meant; underscores in a flag are dashes."""

    source = ""  # of the flags, in front of an error, where it is not the command line

    def __init__(self, description: str, **options: Any):
        super().__init__(description=description, formatter_class=HelpFormatter, allow_abbrev=False, **options)

    def parse_known_args(self, args=None, namespace=None):
        words = []
        for word in sys.argv[1:] if args is None else args:
            if not word.isprintable():  # bytes that are no text, line breaks
                self.error(f"{word!a}: expected text of printable characters")
            name, *value = word.split("=", 1)
            words.append("=".join([name.replace("_", "-"), *value]) if name.startswith("--") else word)
        return super().parse_known_args(words, namespace)

    def parse_given(self, arguments: list[str] | None = None) -> dict[str, Any]:
        """The values of the flags that were typed, by destination; no defaults."""
        unset = object()
        namespace = argparse.Namespace(**{action.dest: unset for action in self._actions})
        return {key: value for key, value in vars(self.parse_args(arguments, namespace)).items() if value is not unset}

    def with_defaults(self, given: dict[str, Any]) -> argparse.Namespace:
        """The arguments as ``parse_args`` returns them: ``given``, and the defaults of all other flags."""
        defaults = {action.dest: action.default for action in self._actions if action.default != argparse.SUPPRESS}
        return argparse.Namespace(**defaults | given)

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            flag = message.split(": ", 1)[1].split()[0].split("=")[0]
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(flag, known, 1)
            typed = [flag, *(word.split("=")[0].replace("_", "-") for word in sys.argv[1:])]
            before = [word for word in typed[: -typed[::-1].index(flag) - 1] if word in known and flag[0] != "-"]
            advice = f"did you mean {near[0]}?" if near else f"see python {self.prog} --help"
            message += f"; {before[-1]} takes no more values" if before else f"; {advice}"
        self.exit(2, f"{self.prog}: error: {self.source}{message}\n")


def titles(table: Mapping[str, Any]) -> str:
    """A table of choices for ``--help``: name -> a text, or something with a ``title``."""
    return "; ".join(f"{name}: {row if isinstance(row, str) else row.title}" for name, row in table.items())


def add_data(
    parser: Parser, datasets: Mapping, name_of_file: Callable[[str], str | None] | None = None
) -> argparse._ArgumentGroup:
    """Flags that say which images.

    Args:
        datasets: the table of names, each with a title.
        name_of_file: of a file that is a data set as well, then its ``--data-path``; None of another.
    """

    class Name(argparse.Action):
        def __call__(self, parser, namespace, value, option_string=None):
            known = value.lower() in datasets
            name = value.lower() if known else name_of_file and name_of_file(value)
            if name is None:
                choices = f"{', '.join(datasets)}{', or a file' if name_of_file else ''}"
                raise argparse.ArgumentError(self, f"invalid choice: {value!r} (choose from {choices})")
            namespace.dataset = name
            if not known:
                namespace.data_path = value

    group = parser.add_argument_group("data")
    add = group.add_argument
    what = titles(datasets) + "; or a file of your own numbers, .npy, .npz, .csv or .mat" * (name_of_file is not None)
    add("--dataset", default="mnist", action=Name, metavar="NAME|FILE" if name_of_file else "NAME", help=what)
    where = "where the data is or is downloaded to (default: where the checkpoint's was, or ./datasets)"
    add("--data-path", metavar="DIR", help=where)
    add("--image-size", type=positive, metavar="PIXELS", help="for folder: 32 to 256 (default: 64)")
    add("--channels", type=positive, metavar="C", help="for folder: 3, RGB (default), or 1, grey")
    add("--skip-corrupt", action="store_true", help="name the images that cannot be decoded and go on")
    white = "value of white in images of more than 8 bits (default: 65535 of 16 bits, else 1, 255 or 65535 as the "
    add("--white", type=positive_float, metavar="W", help=white + "largest value of the folder has it)")
    return group


def add_model(parser: Parser, linear_layers: bool = False) -> argparse._ArgumentGroup:
    """The flags of the published release that say which network; evaluation checks them against the checkpoint.

    Args:
        linear_layers: with ``-l``, for the scripts that read a checkpoint; train.py has it from the table of models.
    """
    group = parser.add_argument_group("model")
    add = group.add_argument
    add("-n", "--latent-dim", type=positive, metavar="N", help="n, dimension of the code (default: the data set's)")
    add("--vae", action="store_true", help="the model is a VAE")
    if linear_layers:
        add("-l", "--linear-layers", type=natural, metavar="L", help="l, linear layers after the encoder; 0: plain AE")
    return group


def add_run(parser: Parser, batch_size: int) -> argparse._ArgumentGroup:
    """Flags of every script about how to compute."""
    group = parser.add_argument_group("computation")
    group.add_argument("--gpu", action="store_true", help="compute on the first CUDA device; without one, on the CPU")
    group.add_argument("--seed", type=seed, default=0, help="seed of everything random")
    group.add_argument("--batch-size", type=positive, default=batch_size, metavar="B", help="images at a time")
    return group


def add_checkpoint(parser: Parser, several: bool = False, default: str = "the data set's newest"):
    """Flags that say which checkpoint; ``default`` names the one without ``--model-name``."""
    group = parser.add_argument_group("files")
    group.add_argument("--checkpoint", default="./checkpoint", metavar="DIR", help="folder of the checkpoints")
    name = f"name of the checkpoint{', or of several' if several else ''} (default: {default})"
    group.add_argument("--model-name", metavar="NAME", nargs="+" if several else None, help=name)
    return group


def add_results(group: argparse._ArgumentGroup) -> None:
    """``--save-path``, for the scripts that make something."""
    where = "results go to DIR/<dataset>/<task>/<model-name>.*"
    group.add_argument("--save-path", default="./results", metavar="DIR", help=where)


def open_streams() -> None:
    """Give a process that was started without standard output or error a place to write, and ASCII ones any text.

    Otherwise the next file that is opened, a checkpoint say, would take their number and what is written to them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def run(main: Callable[[], None]) -> None:
    """Call a script's ``main`` and end with the right status and one line, not a traceback, where a user can mend it.

    Exit status: 0 done, 1 failed, 2 the input was wrong, 3 the training diverged, 130 interrupted by Ctrl-C.
    """
    script = Path(sys.argv[0]).name
    files.written.clear()

    def end(status: int, message: object) -> None:
        left = ", ".join(map(str, dict.fromkeys(files.written)))
        done = "" if status == 2 and not left else f"; written: {left or 'nothing'}"
        print(f"{script}: {' '.join(str(message).split())}{done}", file=sys.stderr)
        sys.exit(status)

    try:
        open_streams()
        main()
        sys.stdout.flush()
    except (UserError, Diverged) as error:
        end(error.exit_status, f"error: {error}")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second one would only print a traceback
        end(130, "interrupted")
    except BrokenPipeError:  # the reader of our output, say head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except UnicodeError as error:
        end(2, f"error: a name or a file is not valid text ({error})")
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        status = 2 if error.errno in USERS_MISTAKES else 1
        end(status, f"error: {error.filename or 'file system'}: {error.strerror}")
    except Exception as error:
        if (reason := exhausted(error)) is None:
            raise
        end(1, f"error: out of memory ({reason}): try a smaller --batch-size, -n or size of what is drawn")

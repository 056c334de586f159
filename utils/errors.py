"""The ways a run ends early that a person, not a traceback, should be told about."""

# Of a failed allocation, which on a CPU is a RuntimeError.
OUT_OF_MEMORY = (
    "allocate", "not enough memory", "out of memory", "bad_alloc", "size calculation overflowed",
    "multiplication overflow", "can't start new thread", "failed to map segment",
)  # fmt: skip


class UserError(Exception):
    """A flag or file cannot be used. One line: its name, what was found, what was expected and what to do."""

    exit_status = 2


class Diverged(Exception):
    """The training loss stopped being a finite number. Exit status 3."""

    exit_status = 3


def exhausted(error: BaseException) -> str | None:
    """The reason, in a line, of an exception that says that memory is lacking; None for any other."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    known = isinstance(error, RuntimeError | ImportError) and any(sign in str(error) for sign in OUT_OF_MEMORY)
    return text if known or isinstance(error, MemoryError) else None

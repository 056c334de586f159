"""The two ways a run ends early that a person, not a traceback, should be told about."""


class UserError(Exception):
    """A flag or file cannot be used. One line: its name, what was found, what was expected and what to do."""

    exit_status = 2


class Diverged(Exception):
    """The training loss stopped being a finite number. Exit status 3."""

    exit_status = 3

"""Signals that end a training between two steps, in all of its processes after the same step."""

import signal
import sys

from utils import distributed

# Ctrl-C, a scheduler, a closed terminal (which Windows has no signal for).
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
POLL_EVERY = 8  # polls of several processes between two messages about them


def exit_on_signals() -> None:
    """Let SIGTERM and SIGHUP raise SystemExit, as Ctrl-C raises KeyboardInterrupt, so that a script can tidy up."""
    for number in set(SIGNALS) - {signal.SIGINT}:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, frame: sys.exit(128 + number))


class Interrupt:
    """Remembers that a signal came, for the training loop to ask about; a second signal ends the process at once."""

    SAVE = 1  # what ``poll`` says of a checkpoint that is due; less than the exit status of any signal

    def __init__(self):
        self.status = 0
        self.polls = 0
        # A signal that is ignored stays ignored: that is how nohup keeps a run alive.
        self.caught = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        for number in self.caught:
            signal.signal(number, self)

    def __call__(self, number: int, frame: object) -> None:
        self.status = 128 + number  # as shells report it
        # torchrun passes signals on, and kills by itself what has not ended after 30 seconds.
        for each in self.caught:
            signal.signal(each, signal.SIG_IGN if distributed.launched() else signal.SIG_DFL)

    def poll(self, save: bool = False, now: bool = True) -> int:
        """The exit status of the signal that came, else ``SAVE`` where ``save``, else 0; the same in all processes.

        Several processes all call it equally often. ``now`` false: they exchange it in every ``POLL_EVERY``-th call.
        """
        own = self.status or (self.SAVE if save else 0)
        if distributed.world() == 1:
            return own
        self.polls += 1
        return distributed.largest(own) if now or self.polls % POLL_EVERY == 0 else 0

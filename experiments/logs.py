"""What is shown of a training, a CSV and TensorBoard's curves: both repeat the metrics of the checkpoint.

Written after each epoch, also between two checkpoints: where a process was killed they may have less than the
checkpoint or more, until ``complete`` makes them equal.
"""

import io
import logging
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from utils import files


class Logs:
    """The logs of the run whose checkpoint is ``path``. TensorBoard is imported with the first event: it is slow.

    ``tracker`` is a run of wandb (``experiments.tracking``), or None.
    """

    def __init__(self, path: Path, tracker: Any = None):
        self.tracker = tracker
        self.table = path.with_name(path.name + ".csv")
        self.folder = path.parent / "tensorboard" / path.name
        self.file: Path | None = None  # of this process, once it has written events

    def add(self, metrics: list[dict], images: dict[str, Tensor]) -> None:
        """The last row of the metrics, and pictures ``(3, H, W)`` in [0, 1] of its epoch."""
        files.write_csv(self.table, metrics)
        self.write(metrics[-1:], images)
        self.track(metrics[-1:], images)

    def complete(self, metrics: list[dict]) -> None:
        """Write the CSV again, and the curves from the first epoch on that they lack or have of another run."""
        if metrics:
            files.write_csv(self.table, metrics)
            kept = self.scalars()
            wrong = (
                number
                for number, row in enumerate(metrics)
                if any(kept.get((tag, row["epoch"])) != np.float32(value) for tag, value in tagged(row).items())
            )
            if (first := next(wrong, None)) is not None:
                self.write(metrics[first:])

    def track(self, rows: list[dict], images: dict[str, Tensor]) -> None:
        """Log what wandb's run, which may be a resumed one, does not have yet."""
        if self.tracker is not None:
            import wandb

            shown = {tag: wandb.Image(to_pil_image(picture.cpu())) for tag, picture in images.items()}
            for row in rows:
                if row["epoch"] >= self.tracker.step:
                    self.tracker.log(tagged(row) | shown, step=row["epoch"])

    def scalars(self) -> dict[tuple[str, int], float]:
        """The values in TensorBoard's files by tag and epoch; where a file is damaged, those before that place."""
        if not self.folder.is_dir():
            return {}
        from tensorboard.backend.event_processing import event_accumulator

        event_accumulator.logger.setLevel(logging.ERROR)  # it warns where a later file replaces events of an earlier
        events = event_accumulator.EventAccumulator(str(self.folder), {event_accumulator.SCALARS: 0}).Reload()
        tags = events.Tags()[event_accumulator.SCALARS]
        return {(tag, event.step): event.value for tag in tags for event in events.Scalars(tag)}

    def write(self, rows: list[dict], images: dict[str, Tensor] | None = None) -> None:
        """Append events at once: SummaryWriter's thread would print a traceback where the disk is full."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter
        from torch.utils.tensorboard import summary

        now, events = time.time(), []
        if self.file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.file = self.folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
            # Readers drop what earlier files have of this epoch and later ones.
            start = SessionLog(status=SessionLog.START)
            events = [Event(file_version="brain.Event:2"), Event(step=rows[0]["epoch"], session_log=start)]
        for row in rows:
            shown = [summary.scalar(tag, value) for tag, value in tagged(row).items()]
            shown += [summary.image(tag, picture, dataformats="CHW") for tag, picture in (images or {}).items()]
            events += [Event(step=row["epoch"], summary=each) for each in shown]
        buffer = io.BytesIO()
        for event in events:
            event.wall_time = now
            RecordWriter(buffer).write(event.SerializeToString())
        with files.named_errors(self.file), open(self.file, "ab") as stream:
            stream.write(buffer.getvalue())


def tagged(row: dict) -> dict[str, float]:
    """The scalars of a row of metrics: ``train_loss`` is train/loss."""
    return {key.replace("_", "/", 1): value for key, value in row.items() if key != "epoch"}

"""Data sets that torchvision downloads, all of their files or none."""

import contextlib
import io
import os
import shutil
import tempfile
from pathlib import Path

from utils.errors import UserError


def download(name: str, path: Path, class_name: str, needed: str, **arguments) -> None:
    """Put the files of ``torchvision.datasets.<class_name>`` below ``path``, or leave nothing and raise UserError.

    ``needed`` says which files to put where instead; ``arguments`` are for the class.
    """
    # Imported where it is needed, here and elsewhere: it takes as long as PyTorch, and --help should not.
    from torchvision import datasets

    created = not path.exists()
    print(f"{name} is not in {path}: downloading it")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path, prefix=".download-") as temporary:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                getattr(datasets, class_name)(temporary, download=True, **arguments)
            for file in [file for file in Path(temporary).rglob("*") if file.is_file()]:
                target = path / file.relative_to(temporary)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
    except Exception as error:  # torchvision raises whatever the network, the disk or the archive raised
        if created:
            shutil.rmtree(path, ignore_errors=True)
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{name}: not found in {path} (--data-path) and the download failed ({reason}). Put {needed}, or use "
            "--dataset digits or --dataset shape, which need no download"
        ) from error

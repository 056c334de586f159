#!/usr/bin/env python
"""The small models of pretrained/: are newly trained ones as good? ``make pretrained`` trains and compares.

python benchmarks/pretrained.py build/pretrained            compare the models in this folder with those shipped
python benchmarks/pretrained.py build/pretrained --write    ship them instead: without what only --resume needs
"""

import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from experiments import formats, run, trained
from utils import checkpoint, cli, files
from utils.errors import UserError

SHIPPED = Path(__file__).resolve().parent.parent / "pretrained" / "digits"
MODELS = ("ae", "irmae")
# Another processor, PyTorch or number of threads adds in another order, which after 3,600 steps is another training.
LOSS_TOLERANCE, RANK_TOLERANCE = 0.1, 2
LARGEST = 1_000_000  # bytes


def results(path: Path) -> dict:
    """What is recorded beside a model: the validation loss of its last epoch, the rank of its test codes."""
    model = trained.load(path)
    spectrum = model.spectrum()
    by = model.trained_by[-1]
    about = {"command": by["command"], "data": "digits of scikit-learn", "epochs": model.epochs}
    about |= {key: by[key] for key in ("seed", "device", "device_name", "threads", "python", "torch", "date")}
    about |= {"validation_loss": run.read(path).metrics[-1]["valid_loss"], "rank": spectrum.rank()}
    return about | {"effective_rank": round(spectrum.effective_rank(), 3), "latent_dim": model.config.latent_dim}


def ship(path: Path, target: Path) -> None:
    """Write a checkpoint without the state of the optimiser and the paths of this machine, and its results as JSON."""
    saved = run.read(path)
    record = {"format": formats.FORMAT, "config": saved.config.to_dict() | {"data_path": None}}
    record |= {key: getattr(saved, key) for key in ("weights", "epoch", "metrics", "provenance")}
    checkpoint.save(target, record)
    content = target.read_bytes()
    if len(content) >= LARGEST:
        raise UserError(f"{target}: {len(content):,} bytes, expected fewer than {LARGEST:,}: use a smaller --arch")
    about = results(target) | {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    files.write_json(target.with_name(f"{target.name}.json"), about)


def main() -> None:
    parser = cli.Parser(__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the --checkpoint of the new training")
    parser.add_argument("--write", action="store_true", help="replace the files of pretrained/ by the new ones")
    args = parser.parse_args()
    torch.set_num_threads(1)

    different = []
    for name in MODELS:
        path = args.folder / "digits" / name
        if args.write:
            ship(path, SHIPPED / name)
        old, new = json.loads((SHIPPED / f"{name}.json").read_text()), results(path)
        loss = new["validation_loss"] / old["validation_loss"] - 1
        if abs(loss) > LOSS_TOLERANCE or abs(new["rank"] - old["rank"]) > RANK_TOLERANCE:
            different.append(name)
        print(
            f"{name}: validation loss {new['validation_loss']:.5f} ({100 * loss:+.1f} % of that shipped), rank "
            f"{new['rank']} of {new['latent_dim']} (shipped: {old['rank']}), {new['epochs']} epochs"
        )
    allowed = f"{100 * LOSS_TOLERANCE:.0f} % in the loss, {RANK_TOLERANCE} in the rank"
    if different:
        raise SystemExit(f"not the models of pretrained/ within {allowed}: {', '.join(different)}")
    print(f"as those of pretrained/ within {allowed}")


if __name__ == "__main__":
    cli.run(main)

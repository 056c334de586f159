#!/usr/bin/env python
"""How cost grows with the number of images: decoding, the cache, an epoch of training, every evaluation.

python benchmarks/growth.py --images 1000 10000 100000 --json growth.json       images made here, 64x64
python benchmarks/growth.py --folder DIR --image-size 64                        and a folder of yours, CelebA say

Every step is a script of the repository in a process of its own with one thread. Seconds are processor time; memory is
the most anonymous memory of the process and its children at a time, read from /proc (Linux), without mapped files,
which the system takes back when it needs them. Temporary files lie in $TMPDIR; of 100,000 images the cache alone takes
1.2 GB.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from PIL import Image, ImageDraw

from benchmarks.measurement import machine
from utils import cli, files
from utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("ellipse", "rectangle", "line", "empty")
INTERVAL = 0.02  # seconds between two looks at the memory
GIB = 2**30
LOAD = "import sys, data; data.load('folder', 'train', sys.argv[1], image_size=int(sys.argv[2]))"
EVALUATIONS = {
    "spectrum": ("singular.py",),
    "reconstruction, interpolation": ("generation.py", "--task", "reconstruction", "interpolation", "-X", "5"),
    "PCA, samples of a Gaussian, of a mixture": ("generation.py", "--task", "pca", "mvg", "gmm", "--fit-to", "train"),
    "t-SNE": ("generation.py", "--task", "tsne"),
    "isometry": ("isometry.py", "--num-pairs", "200"),
    "classification, 100 labels": ("classification.py", "--train-size", "100"),
    "all metrics, FID_cls": ("evaluate.py", "--features", "classifier"),
}


def draw(folder: Path, number: int) -> None:
    """JPEG files of 64x64 pixels: on a gradient between two colours a figure, whose kind is the class."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 64)[:, None, None]
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for index in range(number):
        above, below, ink = rng.integers(0, 256, (3, 3))
        picture = Image.fromarray(np.broadcast_to(above + (below - above) * ramp, (64, 64, 3)).astype(np.uint8))
        x, y, width, height = map(int, rng.integers((4, 4, 8, 8), (40, 40, 24, 24)))
        name = CLASSES[index % len(CLASSES)]
        if name != "empty":
            getattr(ImageDraw.Draw(picture), name)((x, y, x + width, y + height), fill=tuple(map(int, ink)))
        picture.save(folder / name / f"{index:07}.jpg", quality=90)


def anonymous_bytes(pid: int) -> int:
    """Anonymous memory of a process and its children; 0 of one that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    own = next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:")), 0)
    return own + sum(anonymous_bytes(int(child)) for child in children)


def measured(*words: object) -> dict:
    """Run Python on these words to the end: its processor time and peak memory. Raises UserError where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, *map(str, words)], env=environment, stdout=said, stderr=said)
        ended, peak = threading.Event(), [0]

        def look() -> None:
            while not ended.wait(INTERVAL):
                peak[0] = max(peak[0], anonymous_bytes(process.pid))

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:  # interrupted: the process must not outlive its folder
            ended.set()
            watcher.join()
            if process.returncode is None:
                process.kill()
                process.wait()
        if process.returncode:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise UserError(f"{' '.join(map(str, words))}: {last[-1]}")
    return {"seconds": usage.ru_utime + usage.ru_stime, "peak_bytes": peak[0]}


def measure(folder: Path, work: Path, args: argparse.Namespace) -> dict:
    """All numbers of one folder of images."""
    row: dict = {"decoding": measured("-c", LOAD, folder, args.image_size)}
    row["opening the cache"] = measured("-c", LOAD, folder, args.image_size)
    cache = max((folder / ".cache").glob("*.npy"), key=lambda file: file.stat().st_size)
    row |= {"cache_bytes": cache.stat().st_size, "images": len(np.load(cache, mmap_mode="r"))}
    where = ("--dataset", "folder", "--data-path", folder, "--checkpoint", work / "checkpoint", "--model-name", "x")
    flags = ("--image-size", args.image_size, "--arch", args.arch, "-l", 4, "-n", 32, "--epochs", 1)
    row["training, one epoch"] = measured(ROOT / "train.py", *where, *flags)
    for name, (script, *more) in EVALUATIONS.items():
        try:
            row[name] = measured(ROOT / script, *more, *where, "--save-path", work)
        except UserError as error:  # classes that a folder of one's own need not have
            row[name] = {"error": str(error)}
            print(f"{name}: {error}", file=sys.stderr)
    return row


def table(rows: list[dict]) -> str:
    """Markdown: every process, with a column for each number of images."""
    lines = []
    for name in ("decoding", "opening the cache", "training, one epoch", *EVALUATIONS):
        cells = ["–" if "error" in row[name] else f"{row[name]['seconds']:.0f}, {row[name]['peak_bytes'] / GIB:.2f}"
                 for row in rows]  # fmt: skip
        lines.append([name, *cells])
    lines.append(["cache on disk", *(f"{row['cache_bytes'] / GIB:.2f}" for row in rows)])
    return files.markdown_table(["s, GiB", *(f"{row['images']:,}" for row in rows)], lines)


def main() -> None:
    parser = cli.Parser(__doc__.splitlines()[0])
    parser.add_argument("--images", nargs="*", type=cli.positive, default=[1000, 10_000], metavar="N", help="made here")
    parser.add_argument(
        "--folder",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="images of yours; decoded anew where they have no .cache",
    )
    parser.add_argument("--image-size", type=cli.positive, default=64, metavar="PIXELS")
    parser.add_argument("--arch", default="mlp", help="as of train.py")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there, row by row")
    args = parser.parse_args()
    for folder in args.folder:
        if not folder.is_dir():
            raise UserError(f"--folder {folder}: expected a directory of images, found none")
    if not Path("/proc/self/status").exists():
        raise UserError("growth.py: memory is read from /proc, which only Linux has")
    about = machine(torch.device("cpu"), threads=1)
    about |= {"arch": args.arch, "image_size": args.image_size, "batch_size": 32}
    rows: list[dict] = []
    for source in (*args.images, *args.folder):
        with tempfile.TemporaryDirectory() as work:
            folder = source if isinstance(source, Path) else Path(work) / "images"
            if not isinstance(source, Path):
                draw(folder, source)
            rows.append({"source": "made" if folder != source else folder.name} | measure(folder, Path(work), args))
            if args.json:
                files.write_json(args.json, about | {"rows": rows})
            print(table(rows[-1:]), end="\n\n", flush=True)
    print(table(rows))


if __name__ == "__main__":
    cli.run(main)

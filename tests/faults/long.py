"""``make faults``: random kills over all models and seven scripts, and a thousand damaged inputs. Writes a result file.

python tests/faults/long.py --json docs/data/reliability.json
"""

import argparse
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from faults import damage  # noqa: E402
from faults.harness import Kill, call, lines_of  # noqa: E402
from tqdm import tqdm  # noqa: E402

import models  # noqa: E402
from experiments.logs import Logs  # noqa: E402
from utils import checkpoint, files  # noqa: E402
from utils.provenance import provenance  # noqa: E402

MARKS = ("<!-- make faults: begin -->", "<!-- make faults: end -->")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SMALL = ("--arch", "mlp", "--train-size", 24, "--valid-size", 8, "--batch-size", 8, "--epochs", 2)
SCRIPTS = {  # calls on a finished checkpoint or table, and the file with their numbers
    "singular": (damage.EVALUATIONS[0], "digits/singular/m.json"),
    "generation": (damage.EVALUATIONS[1], "digits/mvg/m.json"),
    "evaluate": (damage.EVALUATIONS[2], "digits/evaluate/m.json"),
    "isometry": (damage.EVALUATIONS[3], "digits/isometry/m.json"),
    "classification": (damage.EVALUATIONS[4], "digits/classification/m.json"),
    "anomaly": (("anomaly", "--models", "one-class-svm", "--runs", 2, "--jobs", 1), "t-csv/anomaly/anomaly.json"),
    "density": (
        ("density", "--models", "pca-gmm", "--runs", 1, "--jobs", 1, "--size", 100),
        "toy/density/density.json",
    ),
}
CHANGING = ("seconds", "provenance", "trained_by", "training_seconds", "command")  # of a result, from run to run


deadline = argparse.Namespace(at=math.inf)


def in_time(items: Iterable) -> Iterator:
    """The items, until the time is up."""
    return takewhile(lambda _: time.monotonic() < deadline.at, items)


def plain(content: object) -> object:
    """A result without what may differ between two runs of the same command."""
    if isinstance(content, dict):
        return {key: plain(value) for key, value in content.items() if key not in CHANGING}
    return [plain(each) for each in content] if isinstance(content, list) else content


def trained(folder: Path, name: str) -> tuple:
    """What a training leaves: weights, metrics, rows of the CSV, curves; without times."""
    path = folder / "digits" / name
    record = checkpoint.load(path)
    table = path.with_name(f"{name}.csv").read_text().count("\n")
    curves = {key: value for key, value in Logs(path).scalars().items() if key[0] != "seconds"}
    return record["weights"], plain(record["metrics"]), table, curves


def lost(folder: Path, expected: tuple, name: str) -> list[str]:
    parts = zip(("weights", "metrics", "rows of the CSV", "curves"), trained(folder, name), expected, strict=True)
    wrong = [part for part, found, whole in parts if not damage.same(found, whole)]
    return wrong + ["temporary files"] * any(file.is_file() for file in folder.rglob(f"{files.TEMPORARY}*"))


def kill_trainings(folder: Path, times: int, rng: np.random.Generator, failures: list) -> Counter:
    """Each model's training killed at a random line, and killed again while it goes on, then finished."""
    counts: Counter = Counter()
    for model in tqdm(in_time(models.MODELS), "trainings", len(models.MODELS)):
        flags = ("--dataset", "digits", "--model", model, *SMALL, "--checkpoint")
        outcome = call("train", *flags, folder / "whole")
        assert outcome.status == 0, outcome
        expected, lines = trained(folder / "whole", model), lines_of("train", *flags, folder / "counted", start="fit")
        for number in in_time(range(times)):
            place = folder / f"{model}-{number}"
            more: tuple = ()
            for line in (int(rng.integers(1, lines)), int(rng.integers(1, lines))):
                which = SIGNALS[rng.integers(len(SIGNALS))]
                # A fifth before there is anything to save, the others in the training itself.
                start = "fit" if rng.random() < 0.8 else ""
                outcome = call("train", *flags, place, *more, before=Kill(line, which, start))
                counts["signals"] += outcome.status in (-which, 128 + which)
                if "Traceback" in outcome.err or outcome.status is None:
                    failures.append([f"train {model}, line {line}", outcome.err[-500:]])
                more = ("--resume",)
            outcome = call("train", *flags, place, *more)
            wrong = [outcome.err] if outcome.status else lost(place, expected, model)
            counts["runs"] += 1
            if wrong:
                failures.append([f"train {model}, {place.name}", wrong])
            shutil.rmtree(place)
    return counts


def kill_scripts(folder: Path, good: dict[str, Path], times: int, rng: np.random.Generator, failures: list) -> Counter:
    """Each evaluation killed at a random line and called again: the same numbers as without."""
    counts: Counter = Counter()
    for name, ((script, *arguments), file) in tqdm(in_time(SCRIPTS.items()), "scripts", len(SCRIPTS)):
        where: tuple = ("--dataset", "digits", "--checkpoint", good["trained"], "--model-name", "m")
        where = {"anomaly": ("--dataset", good["table"] / "t.csv"), "density": ()}.get(name, where)
        flags = (*arguments, *where, "--save-path")
        lines = lines_of(script, *flags, folder / "whole")
        expected = plain(json.loads((folder / "whole" / file).read_text()))
        for number in in_time(range(times)):
            place, which = folder / f"{name}-{number}", SIGNALS[rng.integers(len(SIGNALS))]
            outcome = call(script, *flags, place, before=Kill(int(rng.integers(1, lines)), which))
            counts["signals"] += outcome.status in (-which, 128 + which)
            broken = "Traceback" in outcome.err or outcome.status is None
            again = call(script, *flags, place)
            counts["runs"] += 1
            if broken or again.status or plain(json.loads((place / file).read_text())) != expected:
                failures.append([f"{name}, {number}", outcome.err[-500:], again.err[-500:]])
            if any(each.is_file() for each in place.rglob(f"{files.TEMPORARY}*")):
                failures.append([f"{name}, {number}", "temporary files"])
            shutil.rmtree(place)
    return counts


def damaged_inputs(folder: Path, good: dict[str, Path], number: int, seed: int, failures: list) -> dict[str, Counter]:
    counts: dict[str, Counter] = defaultdict(Counter)
    for case in tqdm(in_time(damage.cases(folder / "case", good, number, seed)), "damaged inputs", number):
        for script, *arguments in case.calls:
            outcome, own = call(script, *arguments), counts[case.kind]
            own["inputs"] += 1
            problem = outcome.problem()
            if problem is None and outcome.status == 0 and (case.must_refuse or not case.harmless()):
                problem = "silent acceptance"
            own["refused in a line" if outcome.status else "read as it was, or made again"] += problem is None
            for kind in ("traceback", "hang", "crash", "silent acceptance"):
                own[kind] += problem is not None and problem.startswith(kind)
            if problem:
                failures.append([case.kind, case.name, problem, outcome.err[-800:]])
    return counts


def table(content: dict) -> str:
    """The result as a Markdown table."""
    faults = ("traceback", "hang", "crash", "silent acceptance")
    rows = []
    for kind, own in content["damaged inputs"].items():
        found = [str(own.get(key, 0)) for key in ("inputs", "refused in a line", "read as it was, or made again")]
        rows.append([f"damaged: {kind}", *found, str(sum(own.get(fault, 0) for fault in faults))])
    for kind in ("trainings", "evaluations"):
        own = content[f"killed {kind}"]
        lost = sum(failure[0].startswith("train ") == (kind == "trainings") for failure in content["failures of kills"])
        rows.append([f"{kind}, killed at random lines", str(own["runs"]), f"{own['signals']} signals", "–", str(lost)])
    header = ["fault", "tried", "refused in a line", "harmless, or made again", "lost, crashed, hung or believed"]
    return files.markdown_table(header, rows)


def write_page(page: Path, content: dict) -> None:
    """The table, between the two marks of the page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    about = content["provenance"]
    where = f"{about['device_name']}, {about['threads']} thread, torch {about['torch']}, {about['date']}"
    command = about["command"].split(" --json")[0]
    text = f"`{command}`,\n{where}, {round(content['seconds'] / 60)} minutes:\n\n{table(content)}\n"
    files.write_text(page, before + MARKS[0] + "\n" + text + MARKS[1] + rest.partition(MARKS[1])[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5, help="interrupted runs of each model and script")
    parser.add_argument("--inputs", type=int, default=1000, help="damaged inputs")
    parser.add_argument(
        "--minutes", type=float, default=120, help="of each part, at most: the result says how many ran"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", default="docs/data/reliability.json")
    parser.add_argument("--page", help="document whose table is written again")
    args = parser.parse_args()
    torch.set_num_threads(1)
    started, failures = time.monotonic(), []
    deadline.at = started + 60 * args.minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = damage.make_good(folder / "good")
        parts = {"trainings": (kill_trainings,), "scripts": (kill_scripts, good)}
        children = []
        for part, (kill, *more) in parts.items():  # side by side with the inputs
            children.append(os.fork())
            if children[-1] == 0:
                try:
                    own: list = []
                    counts = kill(folder / part, *more, args.kills, np.random.default_rng(args.seed), own)
                    (folder / f"{part}.json").write_text(json.dumps([counts, own]))
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(0)
        inputs = damaged_inputs(folder, good, args.inputs, args.seed, failures)
        for child in children:
            os.waitpid(child, 0)
        (trainings, first), (scripts, second) = (json.loads((folder / f"{part}.json").read_text()) for part in parts)
        killed = first + second
    content = {
        "provenance": provenance(torch.device("cpu"), args.seed),
        "seconds": round(time.monotonic() - started),
        "killed trainings": trainings,
        "killed evaluations": scripts,
        "damaged inputs": inputs,
        "failures of inputs": failures,
        "failures of kills": killed,
    }
    files.write_json(Path(args.json), content)
    print(json.dumps(content, indent=1, default=str))
    if args.page:
        write_page(Path(args.page), content)
    sys.exit(1 if failures + killed else 0)


if __name__ == "__main__":
    main()

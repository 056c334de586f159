#!/usr/bin/env python
"""Anomaly detection on tabular data: RaDOGAGA and DAGMM beside IsolationForest and OneClassSVM (RaDOGAGA, section 5.3).

python anomaly.py --dataset thyroid                      20 runs of every model, on all cores
python anomaly.py --dataset my.csv --models radogaga-log isolation-forest --runs 5
python anomaly.py --model results/my-csv/anomaly/isolation-forest.pt --score new.csv
"""

import argparse
import time
from pathlib import Path

import numpy as np

from data import tabular
from data.table import Table, halves
from experiments import detectors, seeded_runs
from experiments.anomaly_presets import OVERRIDES, PRESETS, Settings
from utils import cli, devices, files, flags, plots
from utils.errors import UserError

METRICS = ("precision", "recall", "f1", "roc_auc", "average_precision")
TITLES = seeded_runs.TITLES | {"isolation-forest": "IsolationForest", "one-class-svm": "OneClassSVM"}


def measure(scores: np.ndarray, anomaly: np.ndarray, ratio: float, seed: int) -> dict[str, float]:
    """Precision, recall and F1 when the share ``ratio`` of highest scores is flagged; ROC-AUC and average precision."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    flagged = np.zeros(len(scores), dtype=bool)
    # Ties at the threshold, of duplicate rows say, are broken at random: exactly the share is flagged.
    order = np.lexsort((np.random.default_rng(seed).random(len(scores)), -scores))
    flagged[order[: max(1, round(ratio * len(scores)))]] = True
    hits = int((flagged & anomaly).sum())
    precision, recall = hits / flagged.sum(), hits / anomaly.sum()
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    values = precision, recall, f1, roc_auc_score(anomaly, scores), average_precision_score(anomaly, scores)
    return dict(zip(METRICS, map(float, values), strict=True))


def run_once(table: Table, model: str, settings: Settings, seed: int, gpu: bool, path: Path | None = None) -> dict:
    """One run: split, normalise, train, score. The split depends on the seed alone, so every model has the same.

    ``path``: where the trained model is saved.
    """
    started = time.monotonic()
    run = f"{model}, seed {seed}"
    train, test = halves(table, seed)
    detector = detectors.fit(run, table.rows(train), settings, seed, devices.choose(gpu))
    scores = seeded_runs.require_scores(run, detector.scores(table.rows(test)))
    row: dict = {"model": model, "seed": seed}
    if table.labelled:
        row |= measure(scores, table.anomaly[test], float(table.anomaly.mean()), seed)
    if path:
        detectors.save(path, detector, table.fingerprint())
    return row | {"seconds": round(time.monotonic() - started, 2)}


def parse_arguments() -> argparse.Namespace:
    parser = cli.Parser(__doc__.splitlines()[0])
    group = parser.add_argument_group("data")
    names = "; ".join(f"{name}: {title}" for name, title in tabular.DATASETS.items()).replace("%", "%%")
    group.add_argument("--dataset", metavar="NAME|FILE", help=f"{names}; or your own file (default: thyroid)")
    group.add_argument("--data-path", default="./datasets", metavar="DIR|FILE", help="its folder; or your own file")
    label = "of your own file: which rows are anomalies (default: by its name); none: it has no labels"
    group.add_argument("--label", metavar="COLUMN", help=label)
    group.add_argument("--ignore", nargs="+", default=[], metavar="COLUMN", help="of your own file: no features")
    group.add_argument("--drop-constant", action="store_true", help="leave constant columns out of your own file")
    group = parser.add_argument_group("models (default: the preset of the data set, see docs/anomaly.md)")
    titles = list(TITLES)
    group.add_argument("--models", nargs="+", choices=titles, default=titles, metavar="MODEL", help=", ".join(titles))
    group.add_argument("-n", "--latent-dim", type=cli.positive, metavar="N", help="n, dimension of the code")
    group.add_argument("--components", type=cli.positive, metavar="K", help="K, Gaussians of the mixture")
    group.add_argument("--lambda1", type=cli.non_negative_float, metavar="L", help="RaDOGAGA's λ1")
    group.add_argument("--lambda2", type=cli.non_negative_float, metavar="L", help="RaDOGAGA's λ2")
    scored = "how the mixture is fitted: by expectation-maximisation, or by the estimation network as published"
    group.add_argument("--mixture", choices=("em", "network"), help=scored)
    residual = "the mixture is over z, relative error and cosine, not z alone (default: as published, --residual)"
    group.add_argument("--residual", action=argparse.BooleanOptionalAction, help=residual)
    group.add_argument("--epochs", type=cli.positive, metavar="E", help="passes over the training samples")
    group.add_argument("--batch-size", type=cli.positive, metavar="B", help="samples at a time")
    group.add_argument("--lr", type=cli.positive_float, metavar="RATE", help="learning rate of Adam")
    seeded_runs.add_flags(parser.add_argument_group("computation"), runs=20)
    group = parser.add_argument_group("files")
    cli.add_results(group)
    group.add_argument("--model", metavar="FILE", help="with --score: a model that an earlier call saved")
    group.add_argument("--score", metavar="FILE", help="only score the rows of a table with --model")
    flags.add_figures(group)
    args = parser.parse_args()
    if bool(args.model) != bool(args.score):
        raise UserError(f"--{'model' if args.model else 'score'}: --model FILE and --score FILE need each other")
    args.dataset = args.dataset or (args.data_path if Path(args.data_path).is_file() else "thyroid")
    if args.dataset.lower() in tabular.DATASETS and not Path(args.dataset).exists():
        args.dataset = args.dataset.lower()
    return args


def choose_settings(args: argparse.Namespace) -> dict[str, Settings]:
    """The settings of each chosen model. Raises UserError for a flag that none of them has."""
    given = {key: getattr(args, key) for key in OVERRIDES if getattr(args, key) is not None}
    presets = PRESETS.get(args.dataset, PRESETS["default"])
    own = {model: {key: given[key] for key in given.keys() & presets[model]} for model in args.models}
    chosen = {model: presets[model] | own[model] for model in args.models}
    for key, value in given.items():
        if not any(key in settings for settings in chosen.values()):
            flag, models = f"--{key.replace('_', '-')}", ", ".join(args.models)
            raise UserError(f"{flag} {value}: none of the models {models} has such an option; leave it out")
    return chosen


def check_halves(table: Table, seeds: list[int], chosen: dict[str, Settings]) -> None:
    """Raises UserError, before anything is trained, where a split cannot be used."""
    components = max(settings.get("components", 1) for settings in chosen.values())
    for seed in seeds:
        normal = int((~table.anomaly[halves(table, seed)[0]]).sum())
        if normal < components:
            found = f"found {normal} normal rows to train on with seed {seed}; give more rows or fewer components"
            raise UserError(f"--components {components}: a mixture needs at least one training sample each, {found}")


def summarise(rows: list[dict], models: list[str]) -> list[dict]:
    """Mean and standard deviation (n − 1, None of one run) of every metric, one entry for each model."""
    summaries = []
    for model in models:
        own = [row for row in rows if row["model"] == model]
        entry = {"model": model, "runs": len(own), "seconds": float(np.mean([row["seconds"] for row in own]))}
        for metric in METRICS:
            values = np.array([row[metric] for row in own])
            spread = float(values.std(ddof=1)) if len(values) > 1 else None
            entry |= {metric: float(values.mean()), f"{metric}_std": spread}
        summaries.append(entry)
    return summaries


def with_spread(entry: dict, metric: str) -> str:
    """Mean ± standard deviation; of a single run there is none."""
    spread = entry[f"{metric}_std"]
    return f"{entry[metric]:.4f}" + ("" if spread is None else f" ± {spread:.4f}")


def as_markdown(summaries: list[dict]) -> str:
    header = ["model", "precision", "recall", "F1", "ROC-AUC", "average precision", "runs", "seconds per run"]
    rows = []
    for entry in summaries:
        cells = [with_spread(entry, metric) for metric in METRICS]
        rows.append([TITLES[entry["model"]], *cells, str(entry["runs"]), f"{entry['seconds']:.1f}"])
    return files.markdown_table(header, rows)


def score(args: argparse.Namespace) -> None:
    """Score the rows of another table with a saved model."""
    source, path = Path(args.model), Path(args.score)
    detector = detectors.load(source, devices.choose(args.gpu))
    table = detectors.read_rows(path, detector.about, args.ignore)
    folder = Path(args.save_path) / path.name.replace(".", "-") / "score"
    detectors.write_scores(folder / f"{source.stem}.csv", table, {source.stem: detector})


def main() -> None:
    args = parse_arguments()
    if args.score:
        return score(args)
    chosen = choose_settings(args)
    table = tabular.load(args.dataset, args.data_path, args.drop_constant, args.label, args.ignore)
    seeds = list(range(args.seed, args.seed + (args.runs if table.labelled else 1)))
    check_halves(table, seeds, chosen)
    gpu = devices.choose(args.gpu).type != "cpu"

    name = args.dataset if args.dataset in tabular.DATASETS else Path(args.dataset).name.replace(".", "-")
    folder = Path(args.save_path) / name / "anomaly"
    folder.mkdir(parents=True, exist_ok=True)
    path, data = folder / "runs.jsonl", table.fingerprint()
    metrics = METRICS if table.labelled else ()
    done = seeded_runs.finished(path, {*metrics, "seconds"}, data, chosen, seeds)
    tasks = [(model, settings, seed, gpu) for seed in seeds for model, settings in chosen.items()]
    missing = [task for task in tasks if (task[0], task[2]) not in done]
    share = float(table.anomaly.mean())
    print(f"{name}: {table.describe()}")
    kind = f"{share:.2%} anomalies" if table.labelled else "no labels, so no metrics; one run on all rows"
    runs = f"{len(tasks)} runs, {len(missing)} to do, {args.jobs} at a time"
    print(f"{name}: {len(table):,} rows, {kind}; {runs}; {path}", flush=True)
    models = {model: folder / f"{model}.pt" for model in chosen}
    kept = {model for model in chosen if detectors.is_kept(models[model], chosen[model], seeds[0], data)}
    todo = [(*task, models[task[0]]) for task in tasks[: len(chosen)] if task in missing or task[0] not in kept]
    todo += [task for task in missing if task[2] != seeds[0]]
    for row in seeded_runs.run_all(run_once, table, todo, args.jobs):
        if (row["model"], row["seed"]) in done:
            continue  # made again for its model
        row |= {"settings": chosen[row["model"]], "data": data}
        row["provenance"] = seeded_runs.run_provenance(gpu, row["seed"])
        seeded_runs.append_row(path, row)
        done[row["model"], row["seed"]] = row
        found = f"F1 {row['f1']:.4f}  ROC-AUC {row['roc_auc']:.4f}  " if table.labelled else ""
        found += f"{row['seconds']:.1f} s  ({len(done)}/{len(tasks)})"
        print(f"{row['model']:17} seed {row['seed']:3}  {found}", flush=True)

    rows = [done[model, seed] for model, _, seed, _ in tasks]
    trained = {model: detectors.load(models[model], devices.choose(args.gpu)) for model in chosen}
    scores = detectors.write_scores(folder / "scores.csv", table, trained, seeds[0])
    if table.labelled:
        test = halves(table, seeds[0])[1]
        figure = detectors.curves(scores.iloc[test], table.anomaly[test], {model: TITLES[model] for model in chosen})
        plots.save_figure(folder / f"curves.{args.format}", figure, args.dpi)
        print(f"ROC and precision-recall curves of seed {seeds[0]}: {folder / f'curves.{args.format}'}")
    summaries = summarise(rows, list(chosen)) if table.labelled else []
    content = {"dataset": args.dataset, "rows": len(table), "anomaly_ratio": share if table.labelled else None}
    content |= {"columns": table.describe(), "provenance": seeded_runs.run_provenance(gpu, args.seed)}
    files.write_json(folder / "anomaly.json", content | {"summary": summaries, "runs": rows})
    if not table.labelled:
        return
    report = as_markdown(summaries)
    files.write_text(folder / "anomaly.md", report)
    print(report)
    best = max(summaries, key=lambda entry: entry["f1"])
    runs = f"{best['runs']} run{'s' * (best['runs'] > 1)}"
    print(f"{name}: best F1 {with_spread(best, 'f1')} by {TITLES[best['model']]}, {runs}; table in {folder}/anomaly.md")


if __name__ == "__main__":
    cli.run(main)

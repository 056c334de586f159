#!/usr/bin/env python
"""Classify images from the codes of a trained encoder, with few or many labels, or compare its clusters with them.

python classification.py --train-size 100
python classification.py --clusters --model-name infocat-vae
python classification.py --train-size 100 --supervised
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor, nn
from tqdm import tqdm

import data
from experiments import evaluation
from experiments.run import RunConfig
from experiments.trained import Trained
from utils import checkpoint, cli, devices, files, flags, metrics, plots
from utils.errors import Diverged, UserError

REPORT_EVERY = 10  # epochs between two evaluations of the test accuracy, as in the released code
ENCODED = 500  # images encoded at a time
CODES = {
    "encoder": "what the encoder gives, before the linear layers of IRMAE, as in the released code",
    "full": "the code with the linear layers, which the decoder takes",
}
SUBSETS = {
    "first": "the first --train-size images, as in the released code",
    "balanced": "as many of each class as of the others, drawn with --seed",
}


def build_head(latent_dim: int, classes: int) -> nn.Sequential:
    """The published classifier, ``(B, n)`` to ``(B, classes)``: two hidden layers of n units, ReLU, dropout 0.5.

    Source: IRMAE (arXiv 2010.00679), section 4.4 and the released code.
    """
    hidden = [layer for _ in range(2) for layer in (nn.Linear(latent_dim, latent_dim), nn.ReLU(), nn.Dropout(0.5))]
    return nn.Sequential(*hidden, nn.Linear(latent_dim, classes, bias=False))


def balanced_subset(labels: Tensor, size: int, seed: int) -> Tensor:
    """Indices ``(size,)`` of a random subset in which the classes are as equally frequent as the data allows."""
    import pandas as pd  # loading it takes long

    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    # Each image's place among those of its class: taking the lowest places first takes from all classes alike.
    shuffled = pd.Series(labels[order].numpy())
    place = torch.tensor(shuffled.groupby(shuffled).cumcount().to_numpy())
    return order[torch.argsort(place, stable=True)[:size]]


def labels_of(dataset: data.Dataset, name: str) -> Tensor:
    """The labels. Raises UserError where the data set has none."""
    if dataset.labels is None:
        others = ", ".join(key for key, info in data.DATASETS.items() if info.labels)
        others += ", a folder with one sub-folder per class, or a file with labels (train.py --label)"
        raise UserError(f"--dataset {name} has no labels to classify: use {others}")
    return dataset.labels


def fit(args: argparse.Namespace, modules: nn.ModuleList, forward: Callable, train: tuple, test: tuple) -> dict:
    """Train ``modules``, with which ``forward`` makes logits ``(B, classes)`` of inputs; the test accuracies.

    ``best_test_accuracy``, of those measured every ten epochs, is selected on the test set, as in the released code.
    ``train`` and ``test`` are inputs and labels ``(N,)``, on the device.
    """
    optimizer = torch.optim.Adam(modules.parameters(), lr=args.lr, fused=True)
    inputs, labels = train

    @torch.no_grad()
    def accuracy() -> float:
        modules.eval()
        parts = zip(test[0].split(1000), test[1].split(1000), strict=True)
        return sum(int((forward(x).argmax(1) == y).sum()) for x, y in parts) / len(test[1])

    measured = []
    bar = tqdm(range(1, args.epochs + 1), "classifier", leave=False, disable=None)
    for epoch in bar:
        modules.train()
        for index in torch.randperm(len(labels)).to(labels.device).split(args.batch_size):
            loss = F.cross_entropy(forward(inputs[index]), labels[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if epoch % REPORT_EVERY == 0 or epoch == args.epochs:
            if not math.isfinite(loss.item()):
                raise Diverged(f"the classifier diverged in epoch {epoch}: try a lower --lr than {args.lr:g}")
            measured.append(accuracy())
            bar.set_postfix(accuracy=f"{measured[-1]:.4f}")
    return {"test_accuracy": measured[-1], "best_test_accuracy": max(measured), "train_loss": loss.item()}


def untrained(args: argparse.Namespace) -> Trained:
    """A plain encoder for the data set with initial weights: the baseline that has nothing but the labels."""
    file = data.file_options(args.dataset, vars(args))
    if file:
        described = data.arrays.describe(Path(args.data_path), None, file)
    else:
        described = data.describe(args.dataset, args.image_size, args.channels)
    sizes = {key: described[key] for key in ("architecture", "image_size", "channels")}
    flags = {key: getattr(args, key) for key in ("dataset", "data_path", "skip_corrupt", "white")}
    flags |= data.choose_options(args.dataset, {})
    config = RunConfig(model="ae", latent_dim=args.latent_dim or described["latent_dim"], file=file, **sizes, **flags)
    path = checkpoint.path_of(args.checkpoint, args.dataset, "supervised")
    device = devices.choose(args.gpu)
    return Trained("supervised", path, devices.prepare(config.build_model(), device), config, device, posterior="mean")


@torch.no_grad()
def compare_clusters(args: argparse.Namespace) -> None:
    """Accuracy under the best matching, mutual information and Rand index of the classes found without labels."""
    trained = evaluation.from_args(args)
    dataset, model = trained.dataset("test"), trained.model
    labels, names = labels_of(dataset, args.dataset).numpy(), dataset.classes
    batches = dataset.batches(args.batch_size, trained.device)
    probabilities = torch.cat([model.classify(x).cpu() for x in batches])
    found = probabilities.argmax(dim=1).numpy()
    counts = metrics.confusion(found, labels, model.num_classes, len(names))
    matched = metrics.match(counts)
    numbers = metrics.agreement(found, labels, counts) | {
        "images": len(labels),
        "clusters_used": int((counts.sum(axis=1) > 0).sum()),
        "mean_confidence": float(probabilities.max(dim=1).values.mean()),
        "matched_class": {cluster: names[label] for cluster, label in matched.items()},
        "confusion": counts.tolist(),
        "cautions": evaluation.cautions(trained, classified=len(labels)),
    }
    accuracy = f"{trained.name} on {args.dataset}: accuracy {numbers['accuracy']:.4f}"
    figure = plots.confusion(counts, names, matched, accuracy)
    path = evaluation.save(args, "clusters", [trained.name], figure, trained.summary() | numbers)
    print(
        f"{trained.name} on {args.dataset}: clustering accuracy {numbers['accuracy']:.4f}, NMI "
        f"{numbers['normalized_mutual_information']:.4f}, ARI {numbers['adjusted_rand_index']:.4f} on {len(labels):,} "
        f"test images, {numbers['clusters_used']} of {model.num_classes} classes used"
        f"{evaluation.listed(numbers['cautions'])}; {path}"
    )


def train_classifier(args: argparse.Namespace) -> None:
    """Train a classifier on ``--train-size`` labelled images; add its test accuracy to the runs in the model's file."""
    torch.manual_seed(args.seed)
    trained = untrained(args) if args.supervised else evaluation.from_args(args)
    trained.batch_size = ENCODED  # --batch-size is that of the training
    train_set, test_set = trained.dataset("train"), trained.dataset("test")
    train_labels, test_labels = (labels_of(dataset, args.dataset) for dataset in (train_set, test_set))
    size = args.train_size or len(train_set)
    if size > len(train_set):
        raise UserError(f"--train-size {size}: the training set of {args.dataset} has {len(train_set)} images")
    chosen = torch.arange(size) if args.subset == "first" else balanced_subset(train_labels, size, args.seed)

    model, device = trained.model, trained.device
    head = build_head(model.latent_dim, int(max(train_labels.max(), test_labels.max())) + 1).to(device)
    if args.supervised:
        modules, forward = [head, model], lambda rows: head(model.encode(train_set.to_images(rows)))
        inputs = [train_set.store, test_set.store]
    else:
        modules, forward = [head], head
        encode = trained.codes if args.codes == "full" else trained.encoder_codes
        inputs = [encode(train_set), encode(test_set)]
    train = (inputs[0][chosen].to(device), train_labels[chosen].to(device))
    result = fit(args, nn.ModuleList(modules), forward, train, (inputs[1].to(device), test_labels.to(device)))

    keys = ("supervised", "codes", "subset", "seed", "epochs", "batch_size", "lr")
    row = trained.summary() | {"train_size": size} | {key: getattr(args, key) for key in keys}
    result["cautions"] = evaluation.cautions(trained, classified=len(test_labels))
    path = evaluation.output_path(args, "classification", trained.name, suffix=".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):  # another size of the training set may be finished just now
        files.write_json(path, {"runs": [*earlier_runs(path, row), row | result]})
    print(
        f"{trained.name} on {args.dataset}, {args.codes} codes, {size} labels ({args.subset}): "
        f"test accuracy {result['test_accuracy']:.4f} (best seen {result['best_test_accuracy']:.4f})"
        f"{evaluation.listed(result['cautions'])}; {path}"
    )


def earlier_runs(path: Path, row: dict) -> list[dict]:
    """The runs already in the file, without one of exactly the settings of this row, which replaces it."""
    try:
        runs = list(json.loads(path.read_text(encoding="utf-8"))["runs"])
        settings = {key: value for key, value in row.items() if key not in ("trained_by", "provenance")}
        return [run for run in runs if any(run.get(key) != value for key, value in settings.items())]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a result of classification.py ({error}): move it away") from error


def main() -> None:
    parser = cli.Parser(__doc__.splitlines()[0])
    add = parser.add_argument_group("classifier").add_argument
    add("--train-size", type=cli.positive, metavar="N", help="labelled training images (default: all)")
    add("--epochs", type=cli.positive, default=500, help="passes over the labelled images")
    add("--lr", type=cli.positive_float, default=1e-3, help="learning rate of Adam")
    add("--subset", choices=list(SUBSETS), default="first", help="labelled images; " + cli.titles(SUBSETS))
    what = "what is classified; " + cli.titles(CODES)
    add("--codes", choices=list(CODES), default="encoder", help=what)
    add("--supervised", action="store_true", help="train a plain encoder from scratch together with the classifier")
    what = "train nothing: compare the classes that infocat-vae or catvae found by itself with the test labels"
    add("--clusters", action="store_true", help=what)
    # The mean is the first n outputs of the encoder, as released.
    flags.add_figures(evaluation.add_flags(parser, batch_size=100, posterior="mean"))
    args = parser.parse_args()
    if args.clusters and (args.supervised or args.train_size):
        raise UserError("--clusters trains nothing: leave --supervised and --train-size out")
    (compare_clusters if args.clusters else train_classifier)(args)


if __name__ == "__main__":
    cli.run(main)

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

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

import data
import models
from experiments.trained import Experiment, open_experiment, output_path
from utils import checkpoint, cli, clusters, devices, files, latents, plots
from utils.errors import Diverged, UserError

REPORT_EVERY = 10  # epochs between two looks at the test accuracy, as in the released code


def parse_arguments() -> argparse.Namespace:
    parser = cli.Parser(__doc__.splitlines()[0])
    group = cli.add_data(parser, data.DATASETS)
    group.add_argument("--train-size", type=cli.positive, metavar="N", help="labelled training images (default: all)")
    group = cli.add_model(parser)
    cli.add_linear_layers(group)
    group.add_argument(
        "--supervised", action="store_true", help="train a plain encoder from scratch together with the classifier"
    )
    group.add_argument(
        "--clusters",
        action="store_true",
        help="train nothing: compare the classes that infocat-vae or catvae found by itself with the test labels",
    )
    group = cli.add_run(parser, batch_size=100)
    group.add_argument("--epochs", type=cli.positive, default=500, help="passes over the labelled images")
    group.add_argument("--lr", type=cli.positive_float, default=1e-3, help="learning rate of Adam")
    cli.add_results(cli.add_checkpoint(parser))
    return parser.parse_args()


def build_head(latent_dim: int, classes: int) -> nn.Sequential:
    """The published classifier, ``(B, n)`` to ``(B, classes)``: two hidden layers of n units, ReLU, dropout 0.5.

    Source: IRMAE (arXiv 2010.00679), section 4.4 and the released code.
    """
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.Linear(latent_dim, latent_dim), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(latent_dim, classes, bias=False))


def balanced_subset(labels: Tensor, size: int, seed: int) -> Tensor:
    """Indices ``(size,)`` of a random subset in which the classes are as equally frequent as the data allows."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    shuffled = labels[order]
    # Each image's place among those of its class: taking the lowest places first takes from all classes alike.
    place = torch.empty_like(order)
    for label in shuffled.unique():
        members = (shuffled == label).nonzero().squeeze(1)
        place[members] = torch.arange(len(members))
    return order[torch.argsort(place, stable=True)[:size]]


def labels_of(dataset: data.Dataset, name: str) -> Tensor:
    """The labels. Raises UserError where the data set has none."""
    if dataset.labels is None:
        raise UserError(
            f"--dataset {name} has no labels to classify: use mnist, fashion-mnist, digits or shape, or a folder with "
            "one sub-folder per class"
        )
    return dataset.labels


def fit(
    args: argparse.Namespace,
    encoder: nn.Module | None,
    head: nn.Module,
    train: tuple,
    test: tuple,
    to_images: Callable[[Tensor], Tensor],
) -> dict:
    """Train the head, and with it the encoder where there is one; test accuracies.

    Args:
        encoder: a module of images whose ``encode`` gives codes, or None where the inputs are codes already.
        train, test: inputs and labels ``(N,)``, both on the device; images as rows of a data set's store.
        to_images: of the data set.

    Returns:
        ``test_accuracy`` after the last epoch, and ``best_test_accuracy`` as the released code reports it: the best of
        those seen every ten epochs, which has looked at the test set.
    """
    parameters = [*head.parameters(), *(encoder.parameters() if encoder else [])]
    optimizer = torch.optim.Adam(parameters, lr=args.lr, fused=True)
    inputs, labels = train

    def logits(x: Tensor) -> Tensor:
        return head(x) if encoder is None else head(encoder.encode(to_images(x)))

    @torch.no_grad()
    def accuracy() -> float:
        for module in filter(None, (encoder, head)):
            module.eval()
        parts = zip(test[0].split(1000), test[1].split(1000), strict=True)
        return sum(int((logits(x).argmax(1) == y).sum()) for x, y in parts) / len(test[1])

    seen = []
    bar = tqdm(range(1, args.epochs + 1), "classifier", leave=False, disable=None)
    for epoch in bar:
        for module in filter(None, (encoder, head)):
            module.train()
        for index in torch.randperm(len(labels)).to(labels.device).split(args.batch_size):
            loss = F.cross_entropy(logits(inputs[index]), labels[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if epoch % REPORT_EVERY == 0 or epoch == args.epochs:
            if not math.isfinite(loss.item()):
                raise Diverged(f"the classifier diverged in epoch {epoch}: try a lower --lr than {args.lr:g}")
            seen.append(accuracy())
            bar.set_postfix(accuracy=f"{seen[-1]:.4f}")
    return {"test_accuracy": seen[-1], "best_test_accuracy": max(seen), "train_loss": loss.item()}


def supervised_experiment(args: argparse.Namespace) -> Experiment:
    """An untrained plain encoder for the data set: the baseline that has nothing but the labels."""
    described = data.describe(args.dataset, args.image_size, args.channels)
    config = {key: described[key] for key in ("architecture", "channels", "latent_dim")}
    config["latent_dim"] = args.latent_dim or config["latent_dim"]
    computing_on = devices.choose(args.gpu)
    model = devices.prepare(models.build("ae", **config), computing_on)
    described |= {"path": args.data_path or data.DEFAULT_PATH, "white": args.white}
    path = checkpoint.path_of(args.checkpoint, args.dataset, "supervised")
    return Experiment("supervised", path, model, "ae", config, described, computing_on, args.skip_corrupt)


@torch.no_grad()
def compare_clusters(args: argparse.Namespace) -> None:
    """Accuracy under the best matching, mutual information and Rand index of the classes found without labels."""
    experiment = open_experiment(args)
    dataset = experiment.load("test")
    labels = labels_of(dataset, args.dataset).numpy()
    model, names = experiment.model, dataset.classes
    batches = dataset.batches(args.batch_size, device=experiment.device)
    probabilities = torch.cat([model.classify(x).cpu() for x in batches])
    found = probabilities.argmax(dim=1).numpy()
    counts = clusters.confusion(found, labels, model.num_classes, len(names))
    numbers = clusters.agreement(found, labels, counts) | {
        "images": len(labels),
        "clusters_used": int((counts.sum(axis=1) > 0).sum()),
        "mean_confidence": float(probabilities.max(dim=1).values.mean()),
        "matched_class": {cluster: names[label] for cluster, label in clusters.match(counts).items()},
        "confusion": counts.tolist(),
    }
    path = output_path(args, "clusters", experiment.name)
    plots.save_figure(path, plots.confusion(counts, names, clusters.match(counts)))
    files.write_json(path.with_suffix(".json"), experiment.summary() | numbers)
    print(
        f"{experiment.name} on {args.dataset}: clustering accuracy {numbers['accuracy']:.4f}, NMI "
        f"{numbers['normalized_mutual_information']:.4f}, ARI {numbers['adjusted_rand_index']:.4f} on {len(labels):,} "
        f"test images, {numbers['clusters_used']} of {model.num_classes} classes used; {path}"
    )


def main() -> None:
    args = parse_arguments()
    if args.clusters and (args.supervised or args.train_size):
        raise UserError("--clusters trains nothing: leave --supervised and --train-size out")
    if args.clusters:
        compare_clusters(args)
        return
    torch.manual_seed(args.seed)
    experiment = supervised_experiment(args) if args.supervised else open_experiment(args)
    train_set, test_set = experiment.load("train"), experiment.load("test")
    train_labels, test_labels = (labels_of(dataset, args.dataset) for dataset in (train_set, test_set))
    size = args.train_size or len(train_set)
    if size > len(train_set):
        raise UserError(f"--train-size {size}: the training set of {args.dataset} has {len(train_set)} images")
    chosen = balanced_subset(train_labels, size, args.seed)

    computing_on, model = experiment.device, experiment.model
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    head = build_head(model.latent_dim, classes).to(computing_on)
    if args.supervised:
        inputs = [dataset.store.to(computing_on) for dataset in (train_set, test_set)]
        encoder = model
    else:
        inputs = [
            latents.encode(model, dataset, 500, computing_on).to(computing_on) for dataset in (train_set, test_set)
        ]
        encoder = None
    train = (inputs[0][chosen.to(computing_on)], train_labels[chosen].to(computing_on))
    result = fit(args, encoder, head, train, (inputs[1], test_labels.to(computing_on)), train_set.to_images)

    row = experiment.summary() | {
        "supervised": args.supervised,
        "train_size": size,
        "seed": args.seed,
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "lr": args.lr,
    }
    path = output_path(args, "classification", experiment.name, ".json")
    files.write_json(path, {"runs": [*earlier_runs(path, row), row | result]})
    print(
        f"{experiment.name} on {args.dataset}, {size} labels: test accuracy {result['test_accuracy']:.4f} "
        f"(best seen {result['best_test_accuracy']:.4f}); {path}"
    )


def earlier_runs(path, row: dict) -> list[dict]:
    """The runs already in the file, without one of exactly the settings of this row, which replaces it."""
    try:
        runs = list(json.loads(path.read_text())["runs"])
        return [run for run in runs if any(run.get(key) != value for key, value in row.items())]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a result of classification.py ({error}): move it away") from error


if __name__ == "__main__":
    cli.run(main)

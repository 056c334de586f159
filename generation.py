#!/usr/bin/env python
"""Pictures from a trained model: reconstruct, interpolate, sample, walk along principal components, map the images.

python generation.py --task interpolation --dataset mnist --model-name irmae
python generation.py --task pca
python generation.py --task reconstruction interpolation mvg --model-name ae irmae vae
"""

import argparse
import itertools
from pathlib import Path

from experiments import evaluation
from experiments.columns import SAMPLERS
from experiments.explorer import explore
from experiments.pictures import COMPONENTS, GRIDS, SHOWN, first_images, tsne
from experiments.trained import FIT_SIZE, Trained
from utils import cli, files, flags, plots
from utils.errors import UserError
from utils.grids import Grid, write_images

TASKS = {task.__name__: task for task in (*GRIDS, tsne, explore)}


def possible(task: str, trained: Trained) -> bool:
    """Whether a model has what a task shows: a prior, classes, a second component, images."""
    model = trained.model
    try:
        needs = {"prior": lambda: len(model.sample_prior(1)), "pca": lambda: model.latent_dim > 1}
        needs |= {"explore": lambda: model.latent_dim > 1 and not trained.config.file}
        needs |= dict.fromkeys(("conditional", "centroids"), lambda: model.num_classes)
        return task not in needs or bool(needs[task]())
    except UserError:  # no prior
        return False


def run(args: argparse.Namespace, task: str, compared: list[Trained]) -> None:
    """One task of one model, or a grid of images for each of several, to a figure and the numbers beside it."""
    made, numbers = zip(*(TASKS[task](args, trained) for trained in compared), strict=True)
    names = [trained.name for trained in compared]
    path = evaluation.output_path(args, task, *names)
    if isinstance(made[0], Grid):
        path = evaluation.save_grids(args, path, compared, made)
    elif isinstance(made[0], str):
        files.write_text(path := path.with_suffix(".html"), made[0])
    else:
        plots.save_figure(path, made[0], args.dpi)
    if "columns" in numbers[0]:
        files.write_csv(path.with_suffix(".csv"), numbers[0]["columns"])
    about = {"task": task, "fit_to": args.fit_to}
    rows = [trained.summary() | about | own for trained, own in zip(compared, numbers, strict=True)]
    files.write_json(path.with_suffix(".json"), rows if len(rows) > 1 else rows[0])
    error = f"mean squared error {numbers[0]['mean_squared_error']:.4g}; " if "columns" in numbers[0] else ""
    print(f"{task} of {', '.join(names)} on {args.dataset}: {error}{path}")


def save_images(args: argparse.Namespace, compared: list[Trained]) -> None:
    """Samples of one model as numbered files, drawn as evaluate.py draws those that it measures."""
    (trained, *others), (sampler, *tasks) = compared, args.task or [""]
    if others or tasks or sampler not in SAMPLERS or trained.config.file:
        raise UserError(f"--save-images: one model of images and one of --task {', '.join(SAMPLERS)}")
    if args.fit_to == "test":
        raise UserError("--fit-to test: samples to be measured are fitted to training codes, as by evaluate.py")
    codes = trained.sample(sampler, args.sample or FIT_SIZE, args.seed, args.d or COMPONENTS)
    number = write_images(folder := Path(args.save_images), trained.decode_batches(codes))
    about = trained.summary() | {"sampler": sampler, "samples": number, "seed": args.seed}
    files.write_json(folder.with_name(f"{folder.name}.json"), about)  # beside it: tools take all that is in the folder
    print(f"{number:,} samples ({sampler}) of {trained.name} on {args.dataset}: {args.save_images}")


def main() -> None:
    parser = cli.Parser(__doc__.splitlines()[0])
    add = parser.add_argument_group("task").add_argument
    what = "; ".join(f"{name}: {task.__doc__.splitlines()[0].rstrip('.')}" for name, task in TASKS.items())
    what = f"one or several (default: reconstruction). {what}; all: those that the models have"
    add("--task", nargs="+", choices=[*TASKS, "all"], metavar="TASK", help=what)
    what = f"draw no figure: write -N samples ({FIT_SIZE:,}) of --task {', '.join(SAMPLERS)} as numbered PNG files"
    add("--save-images", metavar="DIR", help=what)
    what = "draw no figure without --task: write the codes of the images of --fit-to, or of the first -N, and labels"
    add("--save-codes", action="store_true", help=what + " as .npy")
    add("-X", type=cli.positive, default=10, metavar="ROWS", help="rows of the grid")
    add("-Y", type=cli.positive, default=10, metavar="COLUMNS", help="columns of the grid")
    what = f"principal components of pca, Gaussians of gmm (default: {COMPONENTS}, or n where the code has fewer)"
    add("-d", type=cli.positive, metavar="D", help=what)
    what = "images whose codes mvg, gmm, pca and traverse are fitted to (default: test, as released with IRMAE)"
    add("--fit-to", choices=("train", "test"), help=what)
    what = f"images to encode (default: {SHOWN} test images; to fit to, all test images or {FIT_SIZE} training images)"
    add("-N", "--test-size", dest="sample", type=cli.positive, metavar="N", help=what)
    flags.add_figures(evaluation.add_flags(parser, several=True, test_size=False), grids=True)
    args = parser.parse_args()

    compared = evaluation.all_from_args(args)
    if args.save_images is not None:
        if args.save_codes or not args.save_images:
            raise UserError("--save-images DIR: name a folder, and call --save-codes on its own")
        return save_images(args, compared)
    args.fit_to = args.fit_to or "test"
    tasks = args.task or ([] if args.save_codes else ["reconstruction"])
    for task, trained in itertools.product(tasks if "all" not in tasks else (), compared):
        if not possible(task, trained):  # says so before anything is written
            TASKS[task](args, trained)
    for trained in compared if args.save_codes else ():
        whole = len(trained.dataset(args.fit_to))
        dataset = first_images(trained, args.fit_to, args.sample or whole)
        codes = trained.codes_once(args.fit_to, size := len(dataset))
        written = evaluation.save_codes(args, "codes", trained, codes, dataset, f"{args.fit_to}-codes")
        print(f"{size:,} codes of {trained.name} on {args.dataset} ({args.fit_to}): {written}")
    for task in TASKS if "all" in tasks else dict.fromkeys(tasks):
        able = [each for each in compared if "all" not in tasks or possible(task, each)]
        single = TASKS[task] not in GRIDS or compared[0].config.file
        for models in [[each] for each in able] if single else [able] if able else []:
            run(args, task, models)


if __name__ == "__main__":
    cli.run(main)

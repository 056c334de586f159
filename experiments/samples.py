"""Pictures of what a model has learned so far, written beside its checkpoint while it trains (``--samples-every``)."""

import torch
from torch import Tensor

import data
from experiments import ema
from experiments.run import Run
from experiments.trained import Trained
from utils import checkpoint, plots
from utils.errors import UserError

NUM, COLUMNS = 64, 8  # samples of a grid


def write(run: Run, train_set: data.Dataset, reconstruction: Tensor) -> None:
    """``<model-name>.samples/epoch-0010.png`` and, of ``(3, H, W)``, ``epoch-0010-reconstruction.png``.

    Samples of the model's own prior or, where it has none, of a Gaussian fitted to the codes of training images. The
    seed is the run's, so that the pictures of all epochs are of the same noise; the training's random state, weights
    and running statistics stay as they are.
    """
    config = run.state.config
    model = ema.evaluated(run).eval()
    trained = Trained(run.path.name, run.path, model, config, run.device, seed=config.seed)
    trained._datasets["train", None] = train_set
    with torch.random.fork_rng([run.device] if run.device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        try:
            codes = trained.sample("prior", NUM, config.seed)
        except UserError:  # a model without one
            codes = trained.sample("mvg", NUM, config.seed)
        samples = trained.decode(codes)
    start = run.path.with_name(run.path.name + checkpoint.SAMPLES) / f"epoch-{run.state.epoch:04}"
    plots.save_grid(start.with_name(f"{start.name}.png"), samples, COLUMNS)
    plots.save_picture(start.with_name(f"{start.name}-reconstruction.png"), reconstruction)

"""Run by torchrun: trains every model for an epoch, then resumes it for another. Argument: a folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

import models
import train
from experiments import train_flags
from experiments.run import RunConfig
from utils import distributed

torch.set_num_threads(1)
with distributed.process_group(torch.device("cpu"), lambda: "no advice"):
    for name in models.MODELS:
        path = Path(sys.argv[1]) / name
        for epochs in (1, 2):
            # 23 images: batches of 8, 8 and 7, of which the processes have 3 and 4
            words = ["--model", name, "--arch", "mlp", "--dataset", "digits", "--batch-size", "8", "--lr", "1e-3"]
            words += ["--train-size", "23", "--valid-size", "17", "--epochs", str(epochs)]
            train.train(RunConfig.from_args(train_flags.parse(words)), path, torch.device("cpu"), epochs == 2)

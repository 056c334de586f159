"""Encoder and decoder of a trained model in files that need nothing of this repository."""

import copy
import importlib.util
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.trained import Trained
from models.rrae import RRAE
from utils import files
from utils.errors import UserError

FORMATS = {
    "onnx": "ONNX, for onnxruntime and others (pip install onnx onnxscript)",
    "pt2": "torch.export, for torch.export.load",
}


class Part(nn.Module):
    """A method of a model as a module, its result clamped to a range."""

    def __init__(self, model: nn.Module, method: str, limits: tuple[float | None, float | None] = (None, None)):
        super().__init__()
        self.model, self.method, self.limits = model, method, limits

    def forward(self, x: Tensor) -> Tensor:
        result = getattr(self.model, self.method)(x)
        return result if self.limits == (None, None) else result.clamp(*self.limits)


def export(trained: Trained, path: str | Path, kind: str = "onnx") -> list[Path]:
    """Write ``<path>-encoder.<kind>`` and ``<path>-decoder.<kind>``, for batches of any size, on the CPU; their paths.

    The encoder takes images ``(B, C, H, W)`` in [0, 1] to codes ``(B, n)``, means of distributions; the decoder takes
    codes to images in [0, 1]. Of a model of a file both are of scaled rows. Raises UserError where ONNX is not
    installed, or lacks an operation of the model.
    """
    if kind == "onnx" and not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript")):
        raise UserError("ONNX is not installed: pip install onnx onnxscript, or use --format pt2")
    model, written = copy.deepcopy(trained.model).cpu().eval().requires_grad_(False), []
    if isinstance(model, RRAE):  # its rank, a tensor that the graph would depend on, is final
        model.adaptive_rank, model.rank = False, model.current_rank()
    parts = {
        "encoder": (Part(model, "encode"), trained.dataset("test")[:2].cpu()),
        "decoder": (
            Part(model, "decode", (None, None) if trained.config.file else (0, 1)),
            torch.zeros(2, model.latent_dim),
        ),
    }
    try:
        for name, (part, example) in parts.items():  # two inputs: a batch of one would become a constant
            shapes = ({0: torch.export.Dim("batch")},)
            file = Path(f"{path}-{name}.{kind}")
            with warnings.catch_warnings(), files.replacing(file) as temporary:
                warnings.simplefilter("ignore")
                if kind == "onnx":
                    torch.onnx.export(part, (example,), temporary, dynamo=True, verbose=False, external_data=False,
                                      input_names=["x"], output_names=["y"], dynamic_shapes=shapes)  # fmt: skip
                else:
                    torch.export.save(torch.export.export(part, (example,), dynamic_shapes=shapes), temporary)
            written.append(file)
    except torch.onnx.OnnxExporterError as error:
        raise UserError(
            f"{trained.path}: {trained.config.model} has an operation that ONNX lacks: use --format pt2"
        ) from error
    return written

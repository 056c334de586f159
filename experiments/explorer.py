"""A page to explore a code with: ``generation.py --task explore``."""

import argparse
import base64
import io
from pathlib import Path

import numpy as np
import torch

from experiments.pictures import REACH, fitted_codes
from experiments.trained import Trained
from utils import latents
from utils.errors import UserError

TEMPLATE = Path(__file__).with_name("explorer.html")
POINTS = 2_000  # test codes that are drawn
COMPONENTS = 4  # of the lattice, the first ones
STEPS, PIXELS = 9, 10_500_000  # nodes along each of them, fewer where the decoded images would have more pixels


def lattice(dimensions: int, size: int) -> np.ndarray:
    """``(steps ** dimensions, dimensions)``: nodes from −2σ to +2σ, the last component fastest; 0 is among them."""
    steps = max(s for s in range(3, STEPS + 1, 2) if s == 3 or s**dimensions * size**2 <= PIXELS)
    axes = [np.linspace(-REACH, REACH, steps)] * dimensions
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dimensions)


def sprite(images: np.ndarray) -> tuple[str, int]:
    """Images ``(N, H, W, C)`` uint8 as one PNG in base64, row by row; how many stand in a row."""
    from PIL import Image

    number, height, width, channels = images.shape
    columns = int(np.ceil(np.sqrt(number)))
    sheet = np.zeros((-(-number // columns) * columns, height, width, channels), dtype=np.uint8)
    sheet[:number] = images
    sheet = sheet.reshape(-1, columns, height, width, channels).swapaxes(1, 2).reshape(-1, columns * width, channels)
    Image.fromarray(sheet.squeeze(2) if channels == 1 else sheet).save(stream := io.BytesIO(), "png")
    return base64.b64encode(stream.getvalue()).decode(), columns


def explore(args: argparse.Namespace, trained: Trained) -> tuple[str, dict]:
    """a page for a browser: test codes along principal components, what is decoded there, sliders for the others"""
    from jinja2 import Environment

    if trained.config.file:
        raise UserError("--task explore shows images: of a file use reconstruction, interpolation, mvg or gmm")
    if trained.model.latent_dim < 2:
        raise UserError(f"{trained.path}: a code of n = 1 has no plane: use --task traverse")
    codes = fitted_codes(args, trained)
    fitted = latents.fit_pca(codes, min(COMPONENTS, *codes.shape), args.seed)
    spread = fitted.explained_variance_
    used = int((spread > 1e-12 * spread[0]).sum())  # along the others nothing changes but rounding
    if used < 2:
        raise UserError(f"{trained.path}: {len(codes)} codes lie on a line: use --task traverse, or raise -N")
    deviations = np.sqrt(spread[:used])
    dataset = trained.dataset("test")
    points = fitted.transform(trained.codes_once("test", len(dataset))[:POINTS].double().numpy())[:, :used] / deviations
    nodes = lattice(len(deviations), trained.config.image_size)
    decoded = trained.decode_batches(torch.from_numpy(fitted.mean_ + nodes * deviations @ fitted.components_[:used]))
    images = torch.cat([x.mul(255).round().byte().permute(0, 2, 3, 1).cpu() for x in decoded])
    picture, columns = sprite(images.numpy())
    numbers = {"fitted_to": len(codes), "test_codes": len(points), "nodes": len(nodes), "reach": REACH}
    numbers["explained_variance_ratio"] = fitted.explained_variance_ratio_[:used].tolist()
    numbers["steps"] = round(len(nodes) ** (1 / len(deviations)))
    content = numbers | {"points": points.round(3).tolist(), "columns": columns, "size": trained.config.image_size}
    content |= {"labels": None, "classes": None} if dataset.labels is None else {
        "labels": dataset.labels[:POINTS].tolist(), "classes": dataset.classes}  # fmt: skip
    page = Environment(autoescape=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    title = f"{trained.name} on {trained.config.dataset}"
    return page.render(title=title, content=content, sprite=picture, fit_to=args.fit_to), numbers

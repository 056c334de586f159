"""What checkpoint files hold, as checked values: format 2 (today's), format 1, and bare state dicts of the release."""

import dataclasses
import typing
from pathlib import Path
from typing import TypeVar

import models
from experiments.irmae_release import describe_weights
from utils.checkpoint import damaged

FORMAT = 2  # raise it when an old reader would misread a new file
FORMAT_1_PARTS = {  # where format 1 kept the configuration of a run
    "model": ("name", "config"),
    "data": ("name", "image_size", "channels", "path"),
    "training": ("batch_size", "seed", "lr", "precision"),
}

T = TypeVar("T")


def config_values(record: dict, path: Path) -> dict:
    """The values of a ``RunConfig`` in a record of any format; a bare state dict comes as ``{"weights": ...}``."""
    values = stored_values(record, path)
    if isinstance(options := values.get("options"), dict):
        values = values | {"options": later_options(options) | options}
    return values


def later_options(options: dict) -> dict:
    """Options that earlier files lack, with the values that tell how those were trained: one D for both terms, the
    mixture of RaDOGAGA on the code alone, that of DAGMM on the reconstruction's features too; RAE before ``l2_layers``;
    WAE-GAN's log p(z), where it has it, without a factor.
    """
    later = {"distortion2": options["distortion"]} if "distortion" in options else {}
    if "prior" in options or "lambda_energy" in options:
        later["residual"] = "lambda_energy" in options
    if "embedding_weight" in options:
        later |= {"l2_layers": "all", "sn_layers": "decoder"}
    if "prior_offset" in options:
        later["offset_factor"] = "fixed" if options["prior_offset"] else "learned"
    return later


def stored_values(record: dict, path: Path) -> dict:
    weights = part(record, "weights", path)
    if "format" not in record:
        values = model_values(describe_weights(weights, path))
        return values | {"dataset": path.parent.name, "image_size": models.image_size(values["architecture"])}
    if record["format"] == 1:
        return format_1_values(record, path)
    if record["format"] != FORMAT:
        raise damaged(path, f"checkpoint format {record['format']}, expected 1 or {FORMAT}")
    return part(record, "config", path)


def format_1_values(record: dict, path: Path) -> dict:
    for name, keys in FORMAT_1_PARTS.items():
        if missing := [key for key in keys if key not in part(record, name, path)]:
            raise damaged(path, f"its {name} has no {', '.join(missing)}")
    images = dict(record["data"])
    values = {"dataset": images.pop("name"), "data_path": images.pop("path")}
    values |= {"data_fingerprint": images.pop("files", None), **images, **record["training"]}
    values |= {field: record[name] for field, name in (("epochs", "target"), ("eager", "eager")) if name in record}
    return values | model_values(record["model"])


def model_values(described: dict) -> dict:
    """``{"name", "config"}`` of a model as values of a ``RunConfig``."""
    options = dict(described["config"])
    shared = {key: options.pop(key) for key in models.SHARED if key in options}
    return {"model": described["name"], **shared, "options": options}


def other_keys(record: dict) -> set[str]:
    """The keys of a record that are no fields of a ``Checkpoint`` of today."""
    return {"format"} | ({*FORMAT_1_PARTS, "target", "eager"} if record.get("format") == 1 else set())


def part(record: dict, name: str, path: Path) -> dict:
    """A part of a record. Raises UserError where it is missing or no dict."""
    if record.get(name) is None:
        raise damaged(path, f"a checkpoint without {name}")
    if not isinstance(record[name], dict):
        raise damaged(path, f"its {name} is a {type(record[name]).__name__}, not a dict")
    return record[name]


def checked(cls: type[T], values: dict, path: Path) -> T:
    """The dataclass ``cls`` of the values. Raises UserError where one is missing, unknown or of another type."""
    kinds = typing.get_type_hints(cls)
    required = [each.name for each in dataclasses.fields(cls) if each.default is each.default_factory]  # type: ignore[arg-type]
    missing, unknown = [key for key in required if key not in values], [key for key in values if key not in kinds]
    if missing or unknown:
        wrong = f"no {', '.join(missing)}" if missing else f"an unknown {unknown[0]}"
        raise damaged(path, f"its configuration has {wrong}")
    for key, value in values.items():
        accepted = kinds[key] | int if float in (kinds[key], *typing.get_args(kinds[key])) else kinds[key]
        if not isinstance(value, accepted) or (isinstance(value, bool) and kinds[key] is not bool):
            kind = getattr(kinds[key], "__name__", kinds[key])
            raise damaged(path, f"its {key} is a {type(value).__name__}, not of type {kind}")
    return cls(**values)

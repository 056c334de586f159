"""``train.py --config FILE.yaml``: flags by name; and the file beside each checkpoint that repeats its training."""

import difflib
from pathlib import Path
from typing import Any

import yaml

import data
from utils import cli, files
from utils.errors import UserError

NOT_IN_A_FILE = ("help", "config", "resume")
SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def read(path: str, parser: cli.Parser) -> dict[str, Any]:
    """What ``parser`` makes of the flags in a file, by destination. Raises UserError: no such file or flag.

    A flag stands by its name, long or short, with dashes or underscores: ``batch-size: 128``, ``l: 8``, ``gpu: true``.
    """
    source = f"--config {path}: "
    try:
        text = Path(path).read_text(encoding="utf-8")
        content, node = yaml.load(text, yaml.BaseLoader), yaml.compose(text, yaml.BaseLoader)  # values as typed
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"{source}{reason}: expected a YAML file of flags, a line for each, as lr: 0.001") from error
    if not isinstance(content, dict):
        kind = f"a {type(content).__name__}" if content else "none"
        raise UserError(f"{source}expected a flag on each line, as lr: 0.001, found {kind}")
    if len(keys := [key.value for key, _ in node.value]) > len(content):  # which has the last of equal ones
        raise UserError(f"{source}{max(keys, key=keys.count)} stands there more than once: give it once")
    flags = {option.lstrip("-"): action for action in parser._actions for option in action.option_strings}
    flags = {name: action for name, action in flags.items() if action.dest not in NOT_IN_A_FILE and name[:3] != "no-"}
    words: list[str] = []
    found: dict[str, str] = {}
    for key, value in content.items():
        name = str(key).replace("_", "-")
        if name not in flags:
            near = ", ".join(difflib.get_close_matches(name, flags, 3))
            hint = f"near: {near}" if near else "see train.py --help all"
            hint = "it is for the command line" if name in NOT_IN_A_FILE else hint
            raise UserError(f"{source}unknown flag {key!r}; {hint}")
        if (other := found.setdefault(flags[name].dest, key)) != key:
            raise UserError(f"{source}{key} and {other} are one flag: give it once")
        option = flags[name].option_strings[0]
        if flags[name].nargs == 0:
            if (switch := SWITCHES.get(str(value).lower())) is None:
                raise UserError(f"{source}{name}: expected true or false, found {value!r}")
            option = option if switch else flags[name].option_strings[-1]  # --no-..., where there is one
            words += [option] if switch or option.startswith("--no-") else []
        elif isinstance(value, list | dict) and (flags[name].nargs != "+" or isinstance(value, dict)):
            raise UserError(f"{source}{name}: expected one value, found {value!r}")
        elif isinstance(value, list):
            words += [option, *map(str, value)]
        elif value:  # nothing behind the colon: as if the line were not there
            words += [f"{option}={value}" if option.startswith("--") else f"{option}{value}"]
    parser.source = source
    given = parser.parse_given(words)
    parser.source = ""
    return given


def write(path: Path, config: Any, gpu: bool) -> None:
    """The flags that repeat the training of an ``experiments.run.RunConfig``, beside its checkpoint ``path``."""
    info, values = data.find(config.dataset), config.flags()
    place = values.pop("data_path")
    if config.file:
        head = {"dataset": place}
    else:
        head = {"dataset": config.dataset} | ({"data_path": place} if info.on_disk else {})
        if not info.other_sizes:  # one size and number of channels
            values = {key: value for key, value in values.items() if key not in ("image_size", "channels")}
    values = head | {"checkpoint": str(path.parent.parent), "model_name": path.name, "gpu": gpu} | values
    lines = {key.replace("_", "-"): value for key, value in values.items() if value is not None}
    text = yaml.safe_dump(lines, sort_keys=False, allow_unicode=True)
    files.write_text(
        path.with_name(path.name + ".yaml"),
        f"# python train.py --config THIS_FILE trains it again, unless a --resume changed flags on the way\n{text}",
    )

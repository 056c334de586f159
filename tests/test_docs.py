"""README and docs: every command names a script and flags that exist, every link and figure a file that is there."""

import contextlib
import importlib
import io
import re
import sys
from functools import cache

import pytest
from conftest import ROOT

from experiments import train_flags

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SCRIPTS = {path.stem for path in ROOT.glob("*.py")} - {"hubconf"}
FLAG = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")


@cache
def flags(script: str) -> set[str]:
    """All flags that the script takes, from its ``--help``."""
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        patch.setattr(sys, "argv", [f"{script}.py", "--help", *(["all"] if script == "train" else [])])
        importlib.import_module(script).main()
    options = re.findall(r"^  (-.*?)(?:  |$)", shown.getvalue(), re.MULTILINE)  # "-n N, --latent-dim N"
    return {flag for option in options for flag in FLAG.findall(option)}


def commands(text: str) -> list[tuple[str, str]]:
    """``(script, the rest of its line)`` for each ``python SCRIPT.py`` or ``torchrun ... SCRIPT.py`` of a page."""
    joined = re.sub(r"\\\n[\s#]*", " ", text)
    found = re.findall(r"(?:python|torchrun)\b[^`\n|#]*?\b(\w+)\.py\b([^`\n|#]*)", joined)
    return [(script, rest) for script, rest in found if script in SCRIPTS]


@pytest.mark.parametrize("page", PAGES)
def test_commands_have_flags_that_exist(page):
    for script, rest in commands((ROOT / page).read_text()):
        unknown = {flag.replace("_", "-") for flag in FLAG.findall(rest)} - flags(script)
        assert not unknown, f"{page}: {script}.py{rest}"
        if script == "train" and "..." not in rest and not re.search(r"[${\[]|--config", rest):
            train_flags.parse([word for word in rest.replace("--resume", "").split() if word not in ("<", ">")])


def test_there_are_commands():
    assert sum(len(commands((ROOT / page).read_text())) for page in PAGES) > 60


def test_flags_that_stand_for_published_ones_exist():
    known = set().union(*(flags(script) for script in SCRIPTS))
    lines = [line for line in (ROOT / "docs/commands.md").read_text().splitlines() if line.startswith("| ")]
    assert len(lines) > 50
    for row in lines:
        here = row.split("|")[2]
        given = {flag for code in re.findall(r"`([^`]*)`", here) for flag in FLAG.findall(code)}
        assert given - {"--nproc_per_node"} <= known, row


@pytest.mark.parametrize("page", PAGES)
def test_links_and_figures_are_there(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / page).read_text().replace("\n", " ")):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), target

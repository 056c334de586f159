"""Pages that take a reader through a task: commands and code run, print what the page shows, leave the files it names.

Run in this process, on less data and for fewer epochs than on the page, as the tables below say.
"""

import re
import shlex

import numpy as np
import pytest
import torch
from conftest import ROOT

from experiments import evaluation, explorer

PARTS = re.compile(r"^```(\w+)\n(.*?)^```$|((?:^    \S[^\n]*\n)+)", re.MULTILINE | re.DOTALL)
# What is smaller here. Each text on the left is on its page.
SMALLER = {
    "own-images.md": {
        "digits.images,": "digits.images[:90],",
        "--epochs 20": "--epochs 2",
        "-X 4 -Y 8": "-X 1 -Y 4",
        "-N 1000": "-N 6",
    },
    "own-table.md": {"--epochs 100": "--epochs 2", "--runs 5": "--runs 2 --epochs 2 --jobs 1"},
}


def smaller(text, changes):
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


def masked(line):
    """A printed line without its numbers and the width of its spaces."""
    return re.sub(r" +", " ", re.sub(r"(?<!\w)\d+(?:[,.]\d+)*(?:e-?\d+)?", "#", line))


def follow(page, call, changes):
    """Run a page's code and commands in order and compare what it shows: words as printed, of numbers their places."""
    commands, printed = 0, ""
    for kind, fenced, indented in PARTS.findall(page):
        if kind == "python":
            exec(compile(smaller(fenced, changes), "code of the page", "exec"), {})
        for line in indented.splitlines():
            script, *flags = shlex.split(smaller(line.strip().removeprefix("python "), changes), comments=True)
            result = call(script, *flags)
            assert result.status == 0, (line, result.err)
            commands, printed = commands + 1, printed + result.out
        if kind == "text":
            known = [masked(line) for line in printed.splitlines()]
            for line in fenced.splitlines():
                pattern = re.escape(masked(line)).replace(re.escape("..."), ".*")
                assert any(re.fullmatch(pattern, each) for each in known), f"{line}\nis not in\n{printed}"
    return commands


def assert_files_are_there(page, folder, least):
    named = set(re.findall(r"(?:results|checkpoint|samples)/[\w./+-]*\w", page))
    assert len(named) >= least, named
    for name in named:
        assert (folder / name).exists(), name


@pytest.mark.parametrize(("name", "commands", "files"), [("own-images.md", 4, 6), ("own-table.md", 5, 7)])
def test_a_page_can_be_followed(name, commands, files, call, tmp_path, monkeypatch):
    page, changes = (ROOT / "docs" / name).read_text(), SMALLER[name]
    assert all(text in page for text in changes)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(explorer, "STEPS", 3)  # nodes along each component
    assert follow(page, call, changes) >= commands
    assert_files_are_there(page, tmp_path, files)


def test_figures_for_a_paper(trained, call, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "generation.md").read_text().split("## Figures for a paper")[1].split("\n## ")[0]
    page = page.replace("mnist", "digits")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint").symlink_to(trained)
    assert follow(page, call, {}) == 3
    assert_files_are_there(page, tmp_path, 5)


def test_the_code_of_the_python_page(trained, call, tmp_path, monkeypatch):
    values = np.random.default_rng(0).standard_normal((100, 4))
    monkeypatch.chdir(tmp_path)
    np.savetxt("my.csv", values, delimiter=",", header="a,b,c,d", comments="")
    assert call("train.py", "--dataset", "my.csv", "-l", 1, "--epochs", 1, "--arch", "mlp:8").status == 0
    page = (ROOT / "docs" / "python.md").read_text()
    page = page.replace("checkpoint/mnist", f"{trained}/digits").replace('"PATH"', repr(str(ROOT)))
    names = {"images": np.zeros((3, 1, 32, 32), np.float32), "values": values}
    blocks = [fenced for kind, fenced, _ in PARTS.findall(page) if kind == "python"]
    assert len(blocks) == 4
    exec(compile(blocks[0], "first", "exec"), names)
    assert names["z"].shape == (3, 16) and names["x"].shape == (64, 1, 32, 32)
    exec(compile(blocks[1], "second", "exec"), names)
    assert names["values_again"].shape == (100, 4) and np.isfinite(evaluation.error_at_rank(names["run"], 3))
    exec(compile(blocks[2].replace("pretrained/digits", f"{ROOT}/pretrained/digits"), "third", "exec"), names)
    assert names["run"].config.latent_dim == 32 and names["run"].path.parent == ROOT / "pretrained" / "digits"
    exec(compile(blocks[3], "fourth", "exec"), names)
    codes = torch.zeros(1, names["model"].latent_dim)
    assert names["run"].name == "irmae" and names["model"].decode(codes).shape == (1, 3, 64, 64)

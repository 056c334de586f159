"""The house rules: how long a file and a function may be, and which part may import which (docs/architecture.md)."""

import ast

import pytest
from conftest import ROOT

SCRIPT_LINES, FILE_LINES, FUNCTION_LINES, PRODUCT_LINES = 250, 200, 60, 12_312
SCRIPTS = {"train", "generation", "singular", "classification", "isometry", "density", "anomaly", "evaluate",
           "dimension", "export", "reproduce", "hubconf"}  # fmt: skip
# 8,000 for the house after its redesign, the rest for what came after: published protocols, reliability, dimension.
# What each part may import; a script imports all of them, and no other script.
BELOW = {
    "experiments": {"experiments", "models", "data", "utils"},
    "models": {"models", "utils"},
    "data": {"data", "utils"},
    "utils": {"utils"},
    "benchmarks": {"benchmarks", "experiments", "models", "data", "utils"},
}


def product() -> list[str]:
    """Paths of the product's Python files: neither tests nor documents."""
    files = [*ROOT.glob("*.py"), *(file for part in BELOW for file in (ROOT / part).rglob("*.py"))]
    return sorted(file.relative_to(ROOT).as_posix() for file in files)


FILES = product()


def imported(tree: ast.AST) -> set[str]:
    """Names of the top-level packages and modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found


def test_only_scripts_stand_at_the_top_level():
    assert {path.removesuffix(".py") for path in FILES if "/" not in path} == SCRIPTS


@pytest.mark.parametrize("path", FILES)
def test_a_file_is_short_and_imports_only_what_is_below_it(path):
    text = (ROOT / path).read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= (FILE_LINES if "/" in path else SCRIPT_LINES)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < FUNCTION_LINES, node.name
    ours = imported(tree) & (BELOW.keys() | SCRIPTS)
    assert ours <= BELOW.get(path.split("/")[0], set(BELOW))


def test_the_product_stays_small():
    lines = sum(len((ROOT / path).read_text().splitlines()) for path in FILES if not path.startswith("benchmarks/"))
    assert lines <= PRODUCT_LINES

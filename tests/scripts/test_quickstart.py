"""docs/quickstart.ipynb runs from top to bottom, and shows its figures."""

import nbformat
from conftest import ROOT
from nbclient import NotebookClient


def test_the_notebook(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
    kept = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in kept), "the notebook is kept with its outputs"
    for cell in kept:  # the same code on a smaller budget
        cell.source = cell.source.replace("--epochs 5", "--epochs 1")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT / "docs")}}).execute()
    figures = [output for cell in kept for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(figures) == 4

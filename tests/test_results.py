"""The numbers of the tables in docs/ are those of the result files in docs/data/."""

import json
import re

import numpy as np
import pytest
from conftest import ROOT

import models

DATA = ROOT / "docs" / "data"


def tables(page: str, heading: str) -> list[list[str]]:
    """The cells of all table rows below a heading, without emphasis."""
    text = (ROOT / "docs" / page).read_text()
    section = re.split(r"^#+ ", text[text.index(f"# {heading}") + 2 :], maxsplit=1, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\|(.*)\|$", section.replace("**", ""), re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows]


def row(page: str, heading: str, start: str) -> list[str]:
    (found,) = [cells for cells in tables(page, heading) if cells[0] == start]
    return found


@pytest.mark.parametrize(
    "name, heading, flags, rows",
    [
        ("depth", "Depth (IRMAE", (), 5),
        ("classification", "Classification (IRMAE", (), 5),
        ("variance", "Variance at the start", ("--epochs", 5), 3),
    ],
)
def test_a_table_of_reproduce_is_that_of_its_cells(name, heading, flags, rows, call, tmp_path):
    done = call("reproduce.py", name, *flags, "--from", DATA / "cells", "--save-path", tmp_path)
    assert done.status in (0, 1), done.err  # 1: some cells were not run
    made = (tmp_path / "reproduce" / f"{name}.md").read_text()
    made = [[cell.strip() for cell in line.strip("|").split("|")] for line in made.splitlines() if line[:1] == "|"]
    shown = tables("results.md", heading)
    assert len(made) == 2 + rows and made[2:] == shown[2:]


def test_ranks_over_the_epochs():
    models = json.loads((DATA / "depth-epochs-mnist.json").read_text())["models"]
    lines = {"ae": "AE (`-l 0`)"} | {f"irmae-{layers}": f"IRMAE `-l {layers}`" for layers in (2, 4, 8, 12)}
    for name, start in lines.items():
        by_epoch = {each["epoch"]: each for each in models[name]["epochs"]}
        shown = row("results.md", "Six models", start)
        assert shown[1:6] == [str(by_epoch[epoch]["rank"]) for epoch in (1, 10, 20, 50, 100)]
        assert float(shown[6]) == pytest.approx(by_epoch[100]["effective_rank"], abs=0.06)
        spectrum, rank = models[name]["spectrum"], by_epoch[100]["rank"]
        assert float(shown[7].replace(",", "")) == pytest.approx(spectrum[rank - 1] / spectrum[rank], rel=0.07)
    means = [{each["epoch"]: each for each in models["vae"]["epochs"]}[epoch] for epoch in (1, 10, 20, 50, 100)]
    assert row("results.md", "Six models", "VAE, its means")[1:6] == [str(each["rank_of_means"]) for each in means]


SHAPE_MODELS = {"ae": "AE", "irmae-2": "IRMAE, l = 2", "irmae-4": "IRMAE, l = 4", "irmae-8": "IRMAE, l = 8"}
SHAPE_MODELS["irmae-4, seed 1"] = "IRMAE, l = 4, seed 1"


@pytest.mark.parametrize("heading, file", [("Shape", "shape-100-epochs"), ("With He's", "shape-init")])
def test_factors_of_shapes(heading, file):
    models = json.loads((DATA / f"{file}.json").read_text())["models"]
    for name, about in models.items():
        found, shown = about["all_test_images"], row("results.md", heading, SHAPE_MODELS[name])
        r2 = list(found["r2"].values())
        assert shown[1:3] == [str(found["rank"]), f"{found['effective_rank']:.1f}"] and found["images"] == 10_000
        assert float(shown[3]) == pytest.approx(about["epochs"][-1]["validation_reconstruction"], abs=5e-6)
        assert [float(cell.replace("−", "-")) for cell in shown[4:12]] == pytest.approx(r2[:8], abs=6e-3)
        assert shown[12] == f"{r2[8]:.2f} ({r2[9]:.2f})"


def test_a_folder_of_photographs():
    for found in json.loads((DATA / "faces.json").read_text())["rows"]:
        shown = row("results.md", "A folder of", {"ae": "AE, l = 0", "irmae": "IRMAE, l = 4"}[found["model_name"]])
        last = found["epochs_log"][-1]
        assert last["epoch"] == found["epochs"] == 20
        numbers = (last["train_loss"], last["valid_loss"], found["mse"])
        assert shown[1:4] == [f"{number:.5f}" for number in numbers]
        assert shown[4:] == [f"{found['ssim']:.3f}", str(found["rank"]), f"{found['effective_rank']:.1f}"]
        spectrum = np.array(found["spectrum"])
        assert (spectrum > 1e-3).sum() == found["rank"]
        assert found["model"] == "ae" or spectrum[27] / spectrum[28] == pytest.approx(240, rel=0.02)


LABELS = {"radogaga-d": "RaDOGAGA, h(d) = d", "radogaga-log": "RaDOGAGA, h(d) = log d", "dagmm": "DAGMM",
          "isolation-forest": "IsolationForest", "one-class-svm": "OneClassSVM"}  # fmt: skip


@pytest.mark.parametrize("name", ["thyroid", "arrhythmia", "kddcup", "kddcup-rev"])
def test_anomaly_tables(name):
    heading = {"kddcup": "KDD Cup\n", "kddcup-rev": "KDD Cup-rev"}.get(name, name.capitalize())
    content = json.loads((DATA / f"anomaly-{name}.json").read_text())
    assert {cells[0] for cells in tables("anomaly.md", heading)[2:] if cells[-1] == "20"} == {
        LABELS[found["model"]] + ", z alone" * (found["residual"] is False) for found in content["rows"]
    }
    for found in content["rows"]:
        label = LABELS[found["model"]] + ", z alone" * (found["residual"] is False)
        shown = row("anomaly.md", heading, label)
        for cell, metric in zip(shown[1:6], ("precision", "recall", "f1", "roc_auc", "average_precision"), strict=True):
            values = found[metric]["values"]
            assert cell == f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
        assert shown[6] == str(len(values)) == "20"


def test_steps_on_a_cpu():
    sources = json.loads((DATA / "throughput-cpu.json").read_text())["sources"]
    shown = {tuple(cells[:3]): cells for cells in tables("benchmarks.md", "CPU") if cells[0] in "12"}
    shown |= {tuple(cells[:4]): cells[1:] for cells in tables("benchmarks.md", "CPU") if cells[0] in models.MODELS}
    assert len(shown) == 8 + 18
    for name, source in sources.items():
        for found in source["rows"] if name != "profile" else ():
            key = name.split("-")[1:] or [found["model"], found["dataset"], str(found["batch_size"])]
            if key == ["irmae", "mnist", "32"]:  # in the first table
                continue
            cells = shown[(*key, found["precision"])]
            assert float(cells[3]) == pytest.approx(found["ms_per_step"], abs=0.06)
            assert float(cells[7]) == pytest.approx(found["reference_ms_per_step"], abs=0.06)
            ratio = "{ratio:.2f} ({ratio_min:.2f}–{ratio_max:.2f})".format(**found)
            assert cells[8] == ratio and cells[6] == f"{100 * found['product_fraction']:.0f} %"
    profiles = {found["precision"]: found["ms_by_kind"] for found in sources["profile"]["rows"]}
    for kind, fp32, _, bf16, _ in tables("benchmarks.md", "Where the time goes")[2:]:
        assert [fp32, bf16] == [f"{profiles[precision][kind]:.1f}" for precision in ("fp32", "bf16")]


def test_every_path_gives_the_same():
    for found in json.loads((DATA / "paths-cpu.json").read_text())["rows"]:
        cells = row("benchmarks.md", "Same results", found["path"])
        assert cells[1:3] == [f"{found['train_loss']:.5f}", f"{found['valid_loss']:.5f}"] and found["agrees"]
        assert cells[4:] == [str(found["rank"]), f"{found['effective_rank']:.2f}"]
    epochs = json.loads((DATA / "throughput-cpu.json").read_text())["subnormal_numbers"]
    took, takes = (f"{np.mean(epochs[key]):.1f}" for key in ("kept", "zero"))
    assert f"took {took} s and takes {takes} (" in " ".join((ROOT / "docs" / "benchmarks.md").read_text().split())


def test_steps_on_a_gpu():
    sources = json.loads((DATA / "gpu-h100.json").read_text())["sources"]
    shown = {tuple(cells[1:4]): cells for cells in tables("benchmarks.md", "GPU") if cells[0] == "irmae"}
    rows = sources["throughput"]["rows"]
    assert len(shown) == len(rows) == 4
    for found in rows:
        cells = shown[found["dataset"], str(found["batch_size"]), found["precision"]]
        assert float(cells[4]) == pytest.approx(found["ms_per_step"], rel=5e-3)
        assert float(cells[8]) == pytest.approx(found["reference_ms_per_step"], abs=0.05)
        assert float(re.match(r"[\d.]+", cells[9])[0]) == pytest.approx(found["ratio"], abs=6e-3)
    together = {first: others for first, *others in tables("benchmarks.md", "GPU") if first in "148"}
    for found in sources["together"]["rows"]:
        number = found.get("processes", found.get("streams"))
        column = 2 if "streams" in found else int(found["mps"])
        assert float(together[str(number)][column].replace(",", "")) == pytest.approx(
            found["steps_per_second"], abs=0.6
        )


def test_references_of_fid_cls():
    found = json.loads((DATA / "fid-cls-references.json").read_text())["fid_cls"].values()
    shown = [float(cells[1].replace(",", "")) for cells in tables("results.md", "Does FID_cls")[2:]]
    assert [shown[0], shown[3], shown[5]] == pytest.approx(list(found), abs=0.06)
    depth = {cells[0]: float(cells[4]) for cells in tables("results.md", "Depth (IRMAE")[2:]}
    assert [shown[k] for k in (1, 2, 4)] == pytest.approx([depth[k] for k in ("l = 8", "l = 4", "AE, l = 0")], abs=0.06)


def test_isometry_table():
    keys = ("isometry_released", "isometry_uniform", "isometry_released_rescaled", "isometry_uniform_rescaled",
            "isometry_ssim_released", "metric_variation")  # fmt: skip
    for found in json.loads((DATA / "isometry-mnist.json").read_text())["rows"]:
        shown = row("isometry.md", "Measured: MNIST", found["model"].replace("beta", "β"))
        for cell, key in zip(shown[1:7], keys, strict=True):
            if key in found["seeds"]:
                values, digits = found["seeds"][key], 2 if key == "metric_variation" else 3
                assert cell == f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"
            else:
                assert cell == "–"
        assert shown[7] == f"{np.mean(found['seeds']['mse']):.4f}"


def test_ten_models():
    columns = {"mse": 5, "ssim": 3, "fid_cls_prior": 1, "fid_cls_mvg": 1, "fid_cls_gmm": 1, "fid_cls_reconstruction": 1,
               "fid_cls_interpolation": 1, "kid_cls_mvg": 1, "rank": 0, "effective_rank": 2,
               "isometry": 3}  # fmt: skip
    for found in json.loads((DATA / "ten-models-mnist.json").read_text())["rows"]:
        cells = row("results.md", "Ten models", found["model_name"])
        numbers = [(found.get(key), digits) for key, digits in columns.items()]
        assert cells[1:-1] == ["–" if number is None else f"{number:.{digits}f}" for number, digits in numbers]


def test_digits_without_labels():
    found = json.loads((DATA / "infocat-clusters.json").read_text())
    keys = ("accuracy", "normalized_mutual_information", "adjusted_rand_index")
    numbers = [[each[key] for key in keys] for each in found["rows"]]
    draws = [np.mean(found["draws"]["by_seed"][str(seed)]) for seed in range(len(numbers))]
    numbers = [[*row, drawn] for row, drawn in zip(numbers, draws, strict=True)]
    _, _, *lines = tables("models.md", "Digits without labels")
    shown = [[float(cell) for cell in (*cells[1:4], cells[5])] for cells in lines[: len(numbers) + 1]]
    assert shown == pytest.approx(np.array([*numbers, np.median(numbers, axis=0)]), abs=6e-4)
    fashion = ", ".join(
        f"{name} {found['fashion_mnist'][key]:.3f}" for name, key in zip(("Accuracy", "NMI", "ARI"), keys, strict=True)
    )
    assert fashion in " ".join((ROOT / "docs" / "models.md").read_text().split())


def test_losses_of_the_discriminator_with_the_offset():
    found = json.loads((DATA / "wae-offset.json").read_text())["loss"]
    page = " ".join((ROOT / "docs" / "models.md").read_text().split())
    assert f"loss is then still {found['fixed']:.1f} after 1,500 steps" in page
    assert f"it is the ideal 2 log 2 = {found['learned']:.2f} from" in page


def test_how_cost_grows():
    found = json.loads((DATA / "growth.json").read_text())["rows"]
    head, _, *lines = tables("benchmarks.md", "How cost grows")
    assert head[1:] == [f"{each['images']:,}" for each in found]
    for name, *cells in lines[:-1]:
        assert cells == [f"{each[name]['seconds']:.0f}, {each[name]['peak_bytes'] / 2**30:.2f}" for each in found]
    assert lines[-1][1:] == [f"{each['cache_bytes'] / 2**30:.2f}" for each in found] and len(lines) == 11

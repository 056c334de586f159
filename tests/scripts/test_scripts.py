"""Every script, run as a user runs it, on real digits: the figure is there, the numbers are right."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from conftest import ROOT, assert_refused, run_script
from PIL import Image

import data
import experiments.run
from experiments import explorer
from experiments.trained import load
from utils import latents

TASKS = ("reconstruction", "interpolation", "mvg", "gmm", "pca", "tsne")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


def common(trained, results):
    return ("--dataset", "digits", "--checkpoint", trained, "--save-path", results)


def model_of(trained, name):
    saved = experiments.run.read(trained / "digits" / name)
    model = saved.config.build_model()
    model.load_state_dict(saved.weights)
    return model.eval()


def read(results, task, name):
    file = results / "digits" / task / f"{name}.png"
    return np.asarray(Image.open(file).convert("L")), json.loads(file.with_suffix(".json").read_text())


@pytest.mark.parametrize("task", TASKS)
def test_generation(trained, results, task, call):
    flags = ("--task", task, "-X", 3, "-Y", 4, "-d", 3, "-N", 200, "--model-name", "irmae", "--bare")
    run = run_script if task == "pca" else call
    result = run("generation.py", *flags, *common(trained, results))
    assert result.status == 0, result.err
    path = results / "digits" / task / "irmae.png"
    assert str(path) in result.last_line
    picture, numbers = read(results, task, "irmae")
    if task != "tsne":
        columns = 8 if task == "reconstruction" else 4
        assert picture.shape == (3 * 66 + 2, columns * 66 + 2)
    assert picture.std() > 10  # not an empty sheet
    assert numbers["model"] == "irmae" and numbers["task"] == task


@pytest.mark.parametrize(("split", "images"), [("test", 360), ("train", 1437)])
def test_densities_are_fitted_to_the_codes_of_a_split(trained, tmp_path, split, images, call):
    flags = ("--task", "pca", "-d", 3, "--model-name", "ae", *(("--fit-to", "train") if split == "train" else ()))
    assert call("generation.py", *flags, *common(trained, tmp_path)).status == 0
    numbers = read(tmp_path, "pca", "ae")[1]
    assert (numbers["fit_to"], numbers["fitted_to"]) == (split, images)
    with torch.no_grad():
        codes = model_of(trained, "ae").encode(data.load("digits", split)[:]).double().numpy()
    variances = np.linalg.eigvalsh(np.cov(codes, rowvar=False))[::-1]
    assert np.allclose(np.square(numbers["standard_deviations"]), variances[:3], rtol=1e-4)


@pytest.mark.parametrize("name", ["ae", "vae"])
def test_generation_from_the_other_models(trained, results, name, call):
    result = call("generation.py", "--task", "mvg", "--model-name", name, *common(trained, results))
    assert result.status == 0, result.err


def test_reconstruction_shows_inputs_beside_outputs(trained, results, call):
    flags = ("--task", "reconstruction", "-X", 2, "-Y", 2, "-N", 50, "--model-name", "ae", "--bare")
    call("generation.py", *flags, *common(trained, results))
    picture, numbers = read(results, "reconstruction", "ae")
    dataset, model = data.load("digits", "test"), model_of(trained, "ae")
    x = dataset[:50]
    with torch.no_grad():
        x_hat = model(x).clamp(0, 1)
    assert numbers["mean_squared_error"] == pytest.approx(((x - x_hat) ** 2).mean().item(), rel=1e-4)
    tiles = picture[2:].reshape(2, 66, -1)[:, :64, 2:].reshape(2, 64, 4, 66)[:, :, :, :64].transpose(0, 2, 1, 3)
    shown = torch.from_numpy(tiles[:, :, ::2, ::2].reshape(8, 1, 32, 32) / 255.0)
    assert torch.allclose(shown[0::2].float(), x[:4], atol=1 / 255)
    assert torch.allclose(shown[1::2].float(), x_hat[:4], atol=1 / 255)


def test_interpolation_includes_both_ends(trained, results, call):
    flags = ("--task", "interpolation", "-X", 2, "-Y", 5, "--model-name", "vae", "--posterior", "mean", "--bare")
    call("generation.py", *flags, *common(trained, results))
    picture, numbers = read(results, "interpolation", "vae")
    model, x = model_of(trained, "vae"), data.load("digits", "test")[:4]
    with torch.no_grad():
        z = model.encode(x)
        ends = model.decode(z).clamp(0, 1)
        middle = model.decode((z[0:1] + z[1:2]) / 2).clamp(0, 1)
    tile = lambda row, column: picture[2 + 66 * row :, 2 + 66 * column :][:64:2, :64:2] / 255  # noqa: E731
    for row in range(2):
        assert np.abs(tile(row, 0) - ends[2 * row, 0].numpy()).max() < 0.01
        assert np.abs(tile(row, 4) - ends[2 * row + 1, 0].numpy()).max() < 0.01
    assert np.abs(tile(0, 2) - middle[0, 0].numpy()).max() < 0.01
    assert numbers["pairs"] == [[0, 1], [2, 3]]


def test_several_tasks_of_several_models_encode_the_data_once(trained, tmp_path, call, monkeypatch):
    from experiments.trained import Trained

    encoded, codes = [], Trained.codes
    monkeypatch.setattr(Trained, "codes", lambda self, x, size=None: encoded.append(len(x)) or codes(self, x, size))
    monkeypatch.setattr(explorer, "STEPS", 3)
    flags = ("--task", "all", "-X", 2, "-Y", 3, *common(trained, tmp_path))
    result = call("generation.py", *flags, "--model-name", "ae", "vae", "--posterior", "mean", "--dpi", 300)
    assert result.status == 0, result.err
    written = sorted(file.relative_to(tmp_path / "digits").as_posix() for file in tmp_path.rglob("*.png"))
    grids = ("gmm", "interpolation", "mvg", "pca", "reconstruction", "traverse")
    single = ["prior/vae.png", "tsne/ae.png", "tsne/vae.png"]
    assert written == sorted([*(f"{task}/ae+vae.png" for task in grids), *single])
    # Of each model all test codes once, and the training codes of tsne; interpolation's four.
    assert sorted(encoded) == [4, 4, 360, 360, 1437, 1437]
    assert sorted(file.name for file in (tmp_path / "digits" / "explore").glob("*.html")) == ["ae.html", "vae.html"]
    rows = read(tmp_path, "pca", "ae+vae")[1]
    assert [row["model_name"] for row in rows] == ["ae", "vae"]
    alone = call("generation.py", "--task", "pca", "-X", 2, "-Y", 3, "--model-name", "ae", *common(trained, tmp_path))
    assert alone.status == 0
    kept = read(tmp_path, "pca", "ae")[1]
    assert kept["standard_deviations"] == rows[0]["standard_deviations"]


@pytest.mark.parametrize("kind", ["pdf", "svg"])
def test_figures_in_other_formats(trained, tmp_path, kind, call):
    base = ("--model-name", "ae", "irmae", "--format", kind, *common(trained, tmp_path))
    assert call("singular.py", *base).status == 0
    assert call("generation.py", "--task", "interpolation", "-X", 2, "-Y", 2, *base).status == 0
    for task in ("singular", "interpolation"):
        content = (tmp_path / "digits" / task / f"ae+irmae.{kind}").read_bytes()
        assert content.startswith({"pdf": b"%PDF", "svg": b"<?xml"}[kind])
    assert not list(tmp_path.rglob("*.png"))
    assert b"/Type3" not in content  # fonts that journals refuse


def test_the_page_to_explore_holds_codes_and_what_the_decoder_makes(trained, tmp_path, call, monkeypatch):
    monkeypatch.setattr(explorer, "STEPS", 5)
    monkeypatch.setattr(explorer, "POINTS", 50)
    flags = ("--task", "explore", "--model-name", "irmae", *common(trained, tmp_path))
    result = call("generation.py", *flags)
    assert result.status == 0 and "irmae.html" in result.last_line, result.err
    page = (tmp_path / "digits" / "explore" / "irmae.html").read_text()
    assert "://" not in page and "lattice</b> of 625 codes, 5 steps" in page and "nearest node" in page
    content = json.loads(re.search(r'id="content">(.*?)</script>', page, re.DOTALL)[1])
    sheet = Image.open(io.BytesIO(base64.b64decode(re.search(r"data:image/png;base64,([^\"]*)", page)[1])))
    assert content["columns"] == 25 and sheet.size == (25 * 32, 25 * 32)

    run = load(trained / "digits" / "irmae")
    codes, dataset = run.encode(run.dataset("test")).double().numpy(), run.dataset("test")
    mean = codes.mean(axis=0)
    _, values, directions = np.linalg.svd(codes - mean, full_matrices=False)
    sigma = values[:4] / np.sqrt(len(codes) - 1)
    points = (codes[:50] - mean) @ directions[:4].T / sigma
    assert np.allclose(np.abs(content["points"]), np.abs(points), atol=2e-3)
    assert content["labels"] == dataset.labels[:50].tolist() and len(content["classes"]) == 10

    def shown(*node):
        index = np.ravel_multi_index(node, (5,) * 4)
        y, x = divmod(int(index), 25)
        return np.asarray(sheet.crop((32 * x, 32 * y, 32 * x + 32, 32 * y + 32))).astype(float)

    def decoded(code):
        return run.decode(code[None]).numpy()[0, 0] * 255

    assert np.abs(shown(2, 2, 2, 2) - decoded(mean)).max() <= 1
    for axis in range(4):
        signs = np.sign((np.array(content["points"]) * points).sum(axis=0))
        node = np.full(4, 2)
        node[axis] = 4
        assert np.abs(shown(*node) - decoded(mean + 2 * sigma[axis] * signs[axis] * directions[axis])).max() <= 1
    node = (4, 0, 2, 1)
    steps = (np.array(node) - 2) * sigma * signs
    assert np.abs(shown(*node) - decoded(mean + steps @ directions[:4])).max() <= 1


def test_samples_and_codes_as_files(trained, tmp_path, call):
    flags = ("--model-name", "irmae", *common(trained, tmp_path))
    images = ("--save-images", tmp_path / "samples", "-N", 23, "--seed", 1)
    assert call("generation.py", *images, "--task", "mvg", *flags).status == 0
    run = load(trained / "digits" / "irmae")
    expected = run.decode(run.sample("mvg", 23, seed=1)).mul(255).round()[:, 0]
    names = [f"{number:06}.png" for number in range(23)]
    assert sorted(file.name for file in (tmp_path / "samples").iterdir()) == names
    assert np.abs(np.stack([Image.open(tmp_path / "samples" / name) for name in names]) - expected.numpy()).max() <= 1
    assert json.loads((tmp_path / "samples.json").read_text())["seed"] == 1
    assert_refused(call("generation.py", *images, "--task", "mvg", *flags), "samples", "not an empty folder")
    assert_refused(call("generation.py", *images, "--task", "mvg", "--save-codes", *flags), "--save-codes on its own")
    images = ("--save-images", tmp_path / "more")
    assert_refused(call("generation.py", *images, *flags), "prior, mvg, gmm")
    assert_refused(call("generation.py", *images, "--task", "mvg", "--fit-to", "test", *flags), "--fit-to test")

    assert call("generation.py", "--save-codes", "--fit-to", "train", *flags).status == 0
    codes, labels = (np.load(tmp_path / "digits" / "codes" / f"irmae-train-{what}.npy") for what in ("codes", "labels"))
    assert_refused(call("generation.py", "--save-codes", "-N", 999_999, *flags), "-N 999999", "360")
    assert np.allclose(codes, run.encode(run.dataset("train")), atol=1e-5)
    assert np.array_equal(labels, run.dataset("train").labels)
    assert not list(tmp_path.rglob("irmae.png"))

    assert call("singular.py", "--save-codes", *flags).status == 0
    kept = np.load(tmp_path / "digits" / "singular" / "irmae-coordinates.npy")
    assert len(kept) == len(np.load(tmp_path / "digits" / "singular" / "irmae-labels.npy")) == 360


def test_export_writes_both_parts(trained, tmp_path):
    result = run_script("export.py", "--model-name", "ae", "--format", "pt2", *common(trained, tmp_path))
    assert result.status == 0, result.err
    decoder = torch.export.load(tmp_path / "digits" / "export" / "ae-decoder.pt2").module()
    assert decoder(torch.zeros(5, 16)).shape == (5, 1, 32, 32) and "ae-encoder.pt2" in result.out


def test_the_same_seed_draws_the_same_samples(trained, tmp_path, call):
    pictures = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        flags = ("--task", "mvg", "-X", 2, "-Y", 2, "--seed", seed, "--model-name", "ae")
        call("generation.py", *flags, *common(trained, tmp_path / folder))
        pictures.append((tmp_path / folder / "digits" / "mvg" / "ae.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_singular_values_of_several_models(trained, results):
    result = run_script("singular.py", "--model-name", "ae", "irmae", "vae", *common(trained, results))
    assert result.status == 0, result.err
    _, rows = read(results, "singular", "ae+irmae+vae")
    assert [row["model_name"] for row in rows] == ["ae", "irmae", "vae"]
    x = data.load("digits", "test")[:360]
    for row in rows:
        model = model_of(trained, row["model_name"])
        torch.manual_seed(0)  # --seed
        with torch.no_grad():
            codes = model.sample_codes(x).double().numpy()
            means = latents.spectrum(model.encode(x))
        centred = codes - codes.mean(0)
        expected = np.linalg.svd(centred, compute_uv=False) ** 2
        expected /= expected[0]
        assert row["spectrum"] == pytest.approx(expected, rel=1e-3, abs=1e-6)
        assert row["rank"] == int((expected > 1e-3).sum())
        assert f"{row['model_name']}: rank {row['rank']} of 16" in result.out
        if row["model_name"] == "vae":  # its code is a distribution: both kinds are reported
            assert row["samples"]["rank"] == row["rank"] and row["means"]["rank"] == means.rank() < row["rank"]
            assert f"of means {means.rank()} and {means.effective_rank():.2f}" in result.last_line
        else:
            assert "means" not in row


def test_the_newest_checkpoint_is_taken_and_named(trained, results, call):
    result = call("singular.py", "-n", 16, *common(trained, results))
    assert result.status == 0, result.err
    newest = max(("ae", "irmae", "vae"), key=lambda name: (trained / "digits" / name).stat().st_mtime)
    assert "using the newest checkpoint of digits" in result.out and result.last_line.startswith(f"{newest}: rank")


def test_classification_from_codes_beats_chance_and_keeps_its_runs(tmp_path, call):
    accuracies = []
    for size in (20, 1000):
        flags = ("--train-size", size, "--epochs", 300, "--model-name", "irmae")
        result = call("classification.py", *flags, *common(ROOT / "pretrained", tmp_path))
        assert result.status == 0, result.err
        runs = json.loads((tmp_path / "digits" / "classification" / "irmae.json").read_text())["runs"]
        accuracies.append(runs[-1]["test_accuracy"])
        assert f"test accuracy {accuracies[-1]:.4f}" in result.last_line
    assert [run["train_size"] for run in runs] == [20, 1000]
    assert accuracies[0] > 0.4 and accuracies[1] > 0.85  # chance is 0.1; found were 0.575 and 0.942


def test_runs_of_other_settings_stay_and_the_same_run_is_replaced(trained, tmp_path, call):
    base = ("--model-name", "ae", "--train-size", 20, "--epochs", 2, *common(trained, tmp_path))
    for more in ((), ("--batch-size", 5), ("--lr", 1e-2), ()):
        assert call("classification.py", *base, *more).status == 0
    runs = json.loads((tmp_path / "digits" / "classification" / "ae.json").read_text())["runs"]
    assert [(run["batch_size"], run["lr"]) for run in runs] == [(5, 1e-3), (100, 1e-2), (100, 1e-3)]


def test_the_classified_codes_are_those_before_the_linear_layers_unless_asked(trained, tmp_path, call):
    base = ("--model-name", "irmae", "--train-size", 20, "--epochs", 2, *common(trained, tmp_path))
    for more, word in (((), "encoder codes"), (("--codes", "full"), "full codes"), ((), "encoder codes")):
        result = call("classification.py", *base, *more)
        assert result.status == 0 and word in result.last_line
    runs = json.loads((tmp_path / "digits" / "classification" / "irmae.json").read_text())["runs"]
    assert [run["codes"] for run in runs] == ["full", "encoder"]
    assert runs[0]["train_loss"] != runs[1]["train_loss"]

    run = load(trained / "digits" / "irmae")
    x = run.dataset("test", 10)
    before, model = run.encoder_codes(x), run.model.cpu().double()
    with torch.no_grad():
        expected = model.enc(x[:].double())
        assert torch.allclose(before.double(), expected, atol=1e-4)
        for layer in model.mlp.hidden:
            expected = expected @ layer.weight.T
    model.float()
    assert torch.allclose(run.codes(x).double(), expected, atol=1e-4) and not torch.allclose(before, run.codes(x))
    vae = load(trained / "digits" / "vae")
    assert torch.equal(vae.encoder_codes(x), vae.codes(x))


def test_data_sets_are_named_in_any_case(trained, tmp_path, call):
    flags = ("--dataset", "DIGITS", "--checkpoint", trained, "--model-name", "ae", "--save-path", tmp_path)
    assert call("singular.py", *flags).status == 0
    assert (tmp_path / "digits" / "singular" / "ae.json").exists()


def test_results_of_different_models_have_different_names():
    from experiments.evaluation import joined

    choices = (["ae-irmae"], ["ae", "irmae"], ["ae", "+irmae"], ["ae+", "irmae"], ["ae%2Birmae"])
    assert len({joined(names) for names in choices}) == len(choices)
    many = [f"a-rather-long-name-of-a-model-{index}" for index in range(20)]
    assert joined(["a+b%d"]) == "a+b%d"  # one model: its own name, as in every script
    assert len(joined(["漢" * 45, "字" * 45]).encode()) < 255
    assert len(joined(many)) < 200 and joined(many) != joined([*many[:-1], "another"])


def test_a_code_of_few_dimensions(tmp_path, call):
    """-d has no default that a small n contradicts; a code of one dimension says what else to look at."""
    for n in (1, 3):
        flags = ("--dataset", "digits", "--checkpoint", tmp_path / "checkpoint")
        train = ("-l", 0, "-n", n, "--epochs", 1, "--train-size", 64, "--valid-size", 32)
        assert call("train.py", *flags, *train).status == 0
        result = call("generation.py", *flags, "--task", "pca", "-X", 2, "-Y", 2, "--save-path", tmp_path)
        if n == 1:
            assert_refused(result, "n = 1", "--task traverse")
        else:
            assert result.status == 0, result.err
            assert len(read(tmp_path, "pca", "ae")[1]["standard_deviations"]) == 3


def test_supervised_classification_needs_no_checkpoint(tmp_path):
    flags = ("--supervised", "--train-size", 600, "--epochs", 15, "-n", 32)
    result = run_script("classification.py", *flags, *common(tmp_path / "none", tmp_path))
    assert result.status == 0, result.err
    (run,) = json.loads((tmp_path / "digits" / "classification" / "supervised.json").read_text())["runs"]
    assert run["test_accuracy"] > 0.7


@pytest.mark.parametrize("subset", ["first", "balanced"])
def test_the_labelled_images_are_the_first_or_as_many_of_each_class(trained, tmp_path, subset, call, monkeypatch):
    import classification

    seen = []

    def fit(args, modules, forward, train, test):
        seen.append(train[1].tolist())
        return {"test_accuracy": 0.0, "best_test_accuracy": 0.0, "train_loss": 0.0}

    monkeypatch.setattr(classification, "fit", fit)
    more = ("--subset", "balanced") if subset == "balanced" else ()
    base = ("--model-name", "ae", "--train-size", 20, *common(trained, tmp_path))
    assert call("classification.py", *base, *more).status == 0
    if subset == "first":
        assert seen == [data.load("digits", "train").labels[:20].tolist()]
    else:
        assert sorted(seen[0]) == sorted([*range(10)] * 2)


def test_balanced_subsets():
    from classification import balanced_subset

    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 5)
    for size, counts in ((3, [1, 1, 1]), (12, [4, 4, 4]), (25, [10, 10, 5]), (85, [50, 30, 5])):
        chosen = balanced_subset(labels, size, seed=0)
        assert len(chosen.unique()) == size
        assert labels[chosen].bincount(minlength=3).tolist() == counts
    assert torch.equal(balanced_subset(labels, 12, 0), balanced_subset(labels, 12, 0))
    assert not torch.equal(balanced_subset(labels, 12, 0), balanced_subset(labels, 12, 1))


def test_the_classifier_is_the_published_one():
    from classification import build_head

    head = build_head(7, 10)
    layers = [type(layer).__name__ for layer in head]
    assert layers == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert [tuple(p.shape) for p in head.parameters()] == [(7, 7), (7,), (7, 7), (7,), (10, 7)]


def test_a_folder_of_images_end_to_end(tmp_path, call):
    for index in range(24):
        mode = ("RGB", "L", "RGBA", "CMYK")[index % 4]
        name = f"{index}.jpg" if mode == "CMYK" else f"{index}.png"
        rng = np.random.default_rng(index)
        image = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((40 + index, 50))
        image.convert(mode).save(tmp_path / name)
    flags = ("--dataset", "folder", "--image-size", 32, "--channels", 1)
    folders = ("--checkpoint", tmp_path / "checkpoint")
    trained = call("train.py", *flags, *folders, "--data-path", tmp_path, "-l", 2, "-n", 8, "--epochs", 1)
    assert trained.status == 0, trained.err
    assert "18 training and 3 validation" in trained.out
    # The checkpoint knows the data, the size and the channels.
    flags = ("--dataset", "folder", "--save-path", tmp_path / "results", "-X", 1, "-Y", 2)
    result = call("generation.py", *flags, *folders)
    assert result.status == 0, result.err
    assert (tmp_path / "results" / "folder" / "reconstruction" / "irmae.png").is_file()


@pytest.mark.parametrize("script", ["train.py", "generation.py", "singular.py", "classification.py"])
def test_help_groups_the_flags(script, call):
    result = call(script, "--help")
    assert result.status == 0
    for words in ("data:", "model:", "computation:", "files:", "--data-path", "--gpu", "--seed", "--checkpoint"):
        assert words in result.out
    assert "default: None" not in result.out


def test_help_of_a_model_has_its_flags_and_that_of_all_has_every_one(call):
    shown = {name: call("train.py", "--help", *name.split()).out for name in ("", "all", "dagmm")}
    assert call("train.py", "-h").out == shown[""]
    for words, where in {"--linear-layers": ("", "all"), "--lambda-energy": ("all", "dagmm"), "--gpu": ("", "all"),
                         "--components": ("all", "dagmm"), "--sub-dim": ("all",)}.items():  # fmt: skip
        assert {name for name, text in shown.items() if words in text} == set(where), words
    assert "default of irmae: 8" in shown[""]
    assert_refused(call("train.py", "--help", "nothing"), "invalid choice: 'nothing'", "dagmm")

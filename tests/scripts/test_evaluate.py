"""evaluate.py on real digits: the numbers are those of independent computations, and what is missing is said once."""

import csv
import io
import json
import pickle
import shutil
import sys
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_refused

import data
import evaluate as evaluate_script
from experiments import evaluation, run
from experiments import fid_features as features
from experiments.trained import load
from models.layers.ssim import ssim
from utils import isometry, latents, metrics
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def with_classifier(trained):
    """The trained checkpoints, and a classifier of digits that had only a few steps."""
    least = features.MIN_STEPS
    features.MIN_STEPS = 48
    try:
        open_classifier(trained, trained)
    finally:
        features.MIN_STEPS = least
    return trained


def open_classifier(folder, trained):
    return features.classifier(folder / "features", load(trained / "digits" / "ae"))


def evaluate(call, folder, results, *flags):
    return call("evaluate.py", "--dataset", "digits", "--checkpoint", folder, "--save-path", results, *flags)


@pytest.fixture(scope="module")
def everything(with_classifier, tmp_path_factory):
    """All three models evaluated at once: exit status, output and rows."""
    from conftest import run_script

    results = tmp_path_factory.mktemp("evaluated")
    flags = ("--features", "classifier", "--fid-samples", 300, "--model-name", "ae", "irmae", "vae")
    result = run_script(
        "evaluate.py", "--dataset", "digits", "--checkpoint", with_classifier, "--save-path", results, *flags
    )
    assert result.status == 0, result.err
    folder = results / "digits" / "evaluate"
    return result, {row["model_name"]: row for row in json.loads((folder / "ae+irmae+vae.json").read_text())}, folder


def open_model(folder, name):
    saved = run.read(folder / "digits" / name)
    model = saved.config.build_model()
    model.load_state_dict(saved.weights)
    return model.eval(), saved


@pytest.mark.parametrize("name", ["ae", "irmae", "vae"])
@torch.no_grad()
def test_numbers_of_a_model(with_classifier, everything, name):
    _, rows, _ = everything
    model, saved = open_model(with_classifier, name)
    dataset = data.load("digits", "test")
    x = dataset[:]
    torch.manual_seed(0)  # --seed
    codes = model.sample_codes(x)
    y = model.decode(codes).clamp(0, 1)
    row = rows[name]
    assert row["posterior"] == "sample"
    assert row["mse"] == pytest.approx(float(F.mse_loss(y.double(), x.double())), rel=1e-4)
    assert row["ssim"] == pytest.approx(float(ssim(y.double(), x.double()).mean()), rel=1e-4)
    assert row["rank"] == latents.spectrum(codes).rank()
    assert row["parameters"] == sum(p.numel() for p in model.parameters())
    assert row["epochs"] == 2
    assert row["training_seconds"] == pytest.approx(sum(epoch["seconds"] for epoch in saved.metrics))
    extractor = open_classifier(with_classifier, with_classifier)
    real, fake = (extractor.of([images], len(images), "test") for images in (x, y))
    assert row["fid_cls_reconstruction"] == pytest.approx(metrics.frechet_distance(real, fake), rel=1e-3)
    assert row["classifier_accuracy"] == extractor.test_accuracy > 0.5


def test_classifier_distances_are_never_called_fid(everything):
    result, rows, folder = everything
    for row in rows.values():
        assert row["fid_mvg"] is None and row["fid_cls_mvg"] > 0 and row["kid_cls_mvg"] > 0
    header = (folder / "ae+irmae+vae.md").read_text().splitlines()[0]
    assert "FID_cls mvg" in header and "KID_cls gmm" in header and "FID mvg" not in header
    assert "test accuracy" in result.out


def test_only_models_with_a_prior_are_sampled_from_it(everything):
    result, rows, folder = everything
    assert rows["vae"]["fid_cls_prior"] > 0
    assert rows["ae"]["fid_cls_prior"] is None and "defines no prior" in result.out
    lines = (folder / "ae+irmae+vae.md").read_text().splitlines()
    assert len(lines) == 5 and "–" in lines[2]
    table = list(csv.DictReader(io.StringIO((folder / "ae+irmae+vae.csv").read_text())))
    assert [row["model_name"] for row in table] == ["ae", "irmae", "vae"]
    assert float(table[1]["mse"]) == rows["irmae"]["mse"] and table[0]["fid_cls_prior"] == ""


def test_the_printed_table_fits_a_terminal_and_shows_what_is_asked(everything):
    result, rows, folder = everything
    printed = [line for line in result.out.splitlines() if line.startswith("|")]
    assert len(printed) == 5 and max(map(len, printed)) <= 120
    assert all(title in printed[0] for title in ("MSE", "rank", "FID_cls mvg"))
    assert len((folder / "ae+irmae+vae.md").read_text().splitlines()[0]) > 120
    many = [row | {"model_name": "a-long-name-of-a-model" * 3} for row in rows.values()]
    assert max(map(len, evaluate_script.markdown(many, None, 120).splitlines())) <= 120
    asked = evaluate_script.markdown(list(rows.values()), ["epochs", "fid_mvg", "rank"], 120)
    assert [cell.strip() for cell in asked.splitlines()[0].split("|")[1:-1]] == ["model", "epochs", "rank"]


def test_numbers_say_how_large_their_sample_is(everything, trained):
    result, rows, _ = everything
    assert f"FID of only 300 images, fewer than {10_000:,}" in result.out
    # 360 test images: enough codes for n = 16, too few for an accuracy; these trainings are finished.
    assert [text.split(" only")[0] for text in rows["ae"]["cautions"]] == ["FID of", "accuracy on"]
    model = load(trained / "digits" / "ae")
    assert evaluation.cautions(model, rank=160, fid=10_000, classified=1000) == []
    model.epochs = 1
    found = evaluation.cautions(model, rank=159, fid=9_999, classified=999)
    starts = ["checkpoint after 1 of 2 epochs", "rank of only 159 codes", "FID of only 9,999", "accuracy on only 999"]
    assert all(text.startswith(start) for text, start in zip(found, starts, strict=True))
    assert evaluation.cautions(model) == found[:1]


@torch.no_grad()
def test_real_is_nearer_to_real_than_samples_and_samples_than_noise(with_classifier):
    """Samples of a linear autoencoder: principal components are trained to the end in no time."""
    extractor = open_classifier(with_classifier, with_classifier)
    images, training = (dataset[:] for dataset in (data.load("digits", "test"), data.load("digits", "train")))
    fitted = latents.fit_pca(training.flatten(1), 32, 0)
    codes = torch.from_numpy(fitted.transform(training.flatten(1).numpy()))
    drawn = fitted.inverse_transform(latents.sample_gaussian(codes, 180, 0).numpy())
    samples = torch.from_numpy(drawn).float().view(-1, 1, 32, 32)
    noise = torch.rand(180, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    sets = (images[::2], images[1::2], samples, noise)
    half, other, sampled, random = (extractor.of([some], len(some), "test") for some in sets)
    distances = [metrics.frechet_distance(half, some) for some in (other, sampled, random)]
    assert 2 * distances[0] < distances[1] and 1.2 * distances[1] < distances[2], distances


def test_the_classifier_is_trained_once_for_the_same_labels(with_classifier, monkeypatch, capsys):
    monkeypatch.setattr(features, "fit", lambda *arguments: pytest.fail("trained again"))
    assert open_classifier(with_classifier, with_classifier).test_accuracy > 0.5
    dataset = data.load("digits", "train")
    other = type(dataset)(dataset.store, dataset.labels.roll(1), dataset.classes)
    assert features.fingerprint(dataset) != features.fingerprint(other)
    assert "test accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"damaged", b"half"])
def test_a_damaged_classifier_is_trained_again(with_classifier, monkeypatch, tmp_path, content):
    kept = with_classifier / "features" / "digits-32x1.pt"
    shutil.copytree(with_classifier / "features", tmp_path / "features")
    damaged = tmp_path / "features" / kept.name
    damaged.write_bytes(kept.read_bytes()[:5000] if content == b"half" else content)
    fitted = []
    monkeypatch.setattr(features, "fit", lambda *arguments: fitted.append(1))
    open_classifier(tmp_path, with_classifier)
    assert fitted and features.kept_classifier(damaged, features.Classifier(1, 10)) is not None


def test_classifier_features_need_labels(trained, tmp_path):
    model = load(trained / "digits" / "ae")
    model.dataset = lambda split: data.base.Dataset(data.load("digits", split).store)
    with pytest.raises(UserError, match="has no labels"):
        features.classifier(tmp_path, model)


def no_download(*arguments, **options):
    raise URLError("name resolution failed")


def test_without_inception_weights_the_other_metrics_still_come(trained, tmp_path, call, monkeypatch):
    import torch_fidelity.feature_extractor_inceptionv3 as library

    monkeypatch.setattr(library, "load_state_dict_from_url", no_download)
    result = evaluate(call, trained, tmp_path, "--model-name", "ae", "--test-size", 50)
    assert result.status == 0, result.err
    warnings = [line for line in result.err.splitlines() if "warning:" in line]
    assert len(warnings) == 1 and "name resolution failed" in warnings[0] and "--inception-weights" in warnings[0]
    (row,) = json.loads((tmp_path / "digits" / "evaluate" / "ae.json").read_text())
    assert row["fid_mvg"] is None and row["mse"] > 0 and row["rank"] > 0 and row["isometry"] is not None


def test_without_the_library_of_inception_the_other_metrics_still_come(monkeypatch):
    import torchmetrics.image.fid as library

    monkeypatch.setattr(library, "_TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(features.FeaturesUnavailable, match="pip install torch-fidelity"):
        features.inception(None, CPU)


def test_the_advice_without_a_network_fits_the_data(call, trained, tmp_path, monkeypatch):
    def unreachable(*_):
        raise OSError("no network")

    monkeypatch.setattr(features, "Inception", unreachable)
    result = evaluate(call, trained, tmp_path, "--model-name", "ae", "--test-size", 50)
    assert "no network); give the file with --inception-weights, or use --features classifier" in result.err
    with pytest.raises(features.FeaturesUnavailable) as reason:  # which reproduce.py shows for CelebA, without labels
        features.inception(None, CPU)
    assert "classifier" not in str(reason.value)


def test_inception_weights_from_a_file(tmp_path, monkeypatch):
    """Random weights stand in for the published ones, which cannot be downloaded everywhere."""
    import torch_fidelity.feature_extractor_inceptionv3 as library

    network = library.FeatureExtractorInceptionV3
    with monkeypatch.context() as patch:
        patch.setattr(library, "load_state_dict_from_url", lambda *arguments, **options: {})
        patch.setattr(network, "load_state_dict", lambda self, weights: None)
        torch.save(network("random", ["2048"]).state_dict(), tmp_path / "random.pth")
    monkeypatch.setattr(library, "load_state_dict_from_url", no_download)
    extractor = features.inception(str(tmp_path / "random.pth"), CPU)
    grey = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    found = extractor.of([grey], 2, "test")
    assert found.shape == (2, 2048) and torch.isfinite(found).all() and extractor.suffix == ""
    assert torch.allclose(found, extractor.of([grey.repeat(1, 3, 1, 1)], 2, "test"))


def test_steps_are_longer_where_codes_are_large(trained, tmp_path, call, monkeypatch):
    """The same model with codes a million times as large has the same r, which steps of 0.01 there have not."""
    run = load(trained / "digits" / "ae")
    codes = run.codes(run.dataset("test"))
    r = evaluate_script.isometry_r(run, codes, evaluate_script.DELTA, 0)
    with torch.no_grad():
        run.model.enc.fc.weight *= 1e6
        run.model.enc.fc.bias *= 1e6
        run.model.dec.fc.weight /= 1e6
    codes = run.codes(run.dataset("test"))
    assert evaluate_script.isometry_r(run, codes, isometry.shortest_step(codes), 0) == pytest.approx(r, abs=2e-3)
    assert abs(evaluate_script.isometry_r(run, codes, evaluate_script.DELTA, 0) or 0.0) < 0.5 < r
    monkeypatch.setattr("utils.isometry.ROUNDINGS", 1e5)  # as for such codes
    done = evaluate(call, trained, tmp_path, "--model-name", "ae", "--features", "none")
    assert "codes so large that isometry is that of steps of" in done.out


class Harm:
    def __reduce__(self):
        return (sys.exit, ("code in the file was run",))


def test_bad_inception_weights(trained, tmp_path, call):
    flags = ("--model-name", "ae", "--inception-weights")
    assert_refused(evaluate(call, trained, tmp_path, *flags, tmp_path / "none.pth"), "none.pth", "no such file")
    (tmp_path / "bad.pth").write_bytes(b"not weights")
    assert_refused(evaluate(call, trained, tmp_path, *flags, tmp_path / "bad.pth"), "bad.pth", "not the weights")
    (tmp_path / "harm.pth").write_bytes(pickle.dumps(Harm()))
    assert_refused(evaluate(call, trained, tmp_path, *flags, tmp_path / "harm.pth"), "harm.pth", "not the weights")


def test_bad_input(trained, tmp_path, call):
    assert_refused(evaluate(call, trained, tmp_path, "--model-name", "ae", "nobody"), "nobody", "no such checkpoint")
    result = evaluate(call, trained, tmp_path, "--model-name", "ae", "--fid-samples", 1)
    assert_refused(result, "--fid-samples", "whole number from 2", "found 1")
    result = evaluate(call, trained, tmp_path, "--model-name", "ae", "--features", "none", "classifier")
    assert_refused(result, "--features none classifier")
    assert_refused(evaluate(call, trained, tmp_path, "--columns", "fid"), "--columns", "'fid'")
    result = evaluate(call, trained, tmp_path, "--model-name", "ae", "--test-size", 1)
    assert_refused(result, "1 test image", "at least 2", "--test-size")

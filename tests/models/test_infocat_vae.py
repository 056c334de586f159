"""CatVAE and InfoCatVAE: each term against a loop over the classes in float64, the prior's geometry, the classes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from data.base import VectorDataset
from experiments.presets import PRESETS
from models.layers.deform import deform
from utils import loop
from utils.errors import UserError

K, DELTA = 4, 3


def build(name: str = "infocat-vae", architecture: str = "mlp:16", channels: int = 6, **options):
    torch.manual_seed(0)
    config = {"num_classes": K, "sub_dim": DELTA, "latent_dim": K * DELTA}
    model = models.build(name, architecture=architecture, channels=channels, **(config | options))
    with torch.no_grad():  # away from the start, where many terms are equal
        model.classes.weight += 0.3 * torch.randn_like(model.classes.weight)
    return model.double()


def split(model, x):
    """Softmax of the classes, and the encoder's output for mean and log-variance, as arrays."""
    features = model.enc(x).detach().numpy()
    exponent = np.exp(features[:, :K] - features[:, :K].max(axis=1, keepdims=True))
    return exponent / exponent.sum(axis=1, keepdims=True), features[:, K:]


def test_divergence_and_entropy_equal_a_loop_over_classes():
    model, x = build(prior_mean=1.5), torch.rand(7, 6, dtype=torch.float64)
    a, base = split(model, x)
    table = model.classes.weight.detach().numpy()
    n = K * DELTA
    kl = entropy = 0.0
    for image in range(len(x)):
        for c in range(K):
            one_hot = np.eye(K)[c]
            output = base[image] + table @ one_hot  # linear in (features, one-hot class)
            mean, logvar = output[:n], output[n:]
            prior_mean = np.zeros(n)
            prior_mean[c * DELTA : (c + 1) * DELTA] = 1.5
            divergence = 0.0
            for j in range(n):
                divergence += 0.5 * (math.exp(logvar[j]) + (mean[j] - prior_mean[j]) ** 2 - 1 - logvar[j])
            kl += a[image, c] * divergence / len(x)
            entropy += a[image, c] * math.log(a[image, c]) / len(x)
    losses = model.losses(x)
    assert float(losses["kl"].detach()) == pytest.approx(kl, rel=1e-10)
    assert float(losses["negative_entropy"].detach()) == pytest.approx(entropy, rel=1e-10)


def test_reconstruction_is_the_cross_entropy_of_a_draw_at_the_soft_class():
    model, x = build("catvae"), torch.rand(7, 6, dtype=torch.float64)
    a, base = split(model, x)
    output = torch.tensor(base + a @ model.classes.weight.detach().numpy().T)
    mean, logvar = output[:, : K * DELTA], output[:, K * DELTA :]
    torch.manual_seed(5)
    losses = model.losses(x)
    torch.manual_seed(5)
    p = model.decode(mean + torch.randn_like(mean) * torch.exp(logvar / 2))
    expected = -(x * p.log() + (1 - x) * (1 - p).log()).sum(dim=1).mean()
    assert float(losses["reconstruction"].detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
    torch.testing.assert_close(model.encode(x), mean)


def test_information_is_the_cross_entropy_of_generated_classes():
    """Ten draws of every class, image by image, with the numbers that the model draws."""
    model = build(info_weight=7.0).eval()
    x = torch.rand(3, 6, dtype=torch.float64)
    torch.manual_seed(3)
    losses = model.losses(x)
    torch.manual_seed(3)
    torch.randn(3, K * DELTA, dtype=torch.float64)  # the posterior's draw comes first
    noise = torch.randn(10 * K, K * DELTA, dtype=torch.float64)
    total = 0.0
    for row in range(10 * K):
        c = row % K
        mean = torch.zeros(K * DELTA, dtype=torch.float64)
        mean[c * DELTA : (c + 1) * DELTA] = 2.0
        logits = model.enc(model.decode((mean + noise[row])[None]))[0, :K]
        total -= float((logits[c] - logits.logsumexp(0)).detach()) / (10 * K)
    assert float(losses["information"].detach()) == pytest.approx(total, rel=1e-9)


def test_information_has_the_published_weight_per_image():
    """100 beside a sum over a batch of 128."""
    assert models.options("infocat-vae")["info_weight"] == PRESETS["infocat-mnist"].flags["info_weight"] == 0.78125
    model = build()
    losses = model.losses(torch.rand(8, 6, dtype=torch.float64))
    evidence = losses["reconstruction"] + losses["kl"] + losses["negative_entropy"]
    torch.testing.assert_close(128 * losses["loss"], 128 * evidence + 100 * losses["information"])


@pytest.mark.parametrize("name", ["catvae", "infocat-vae"])
def test_loss_is_the_weighted_sum(name):
    weights = {"kl_weight": 2.0, "entropy_weight": 3.0} | ({"info_weight": 5.0} if name == "infocat-vae" else {})
    losses = build(name, **weights).losses(torch.rand(8, 6, dtype=torch.float64))
    assert ("information" in losses) == (name == "infocat-vae")
    expected = losses["reconstruction"] + 2 * losses["kl"] + 3 * losses["negative_entropy"]
    torch.testing.assert_close(losses["loss"], expected + 5 * losses.get("information", 0))


def test_class_means_are_orthogonal_and_equidistant():
    means = build(prior_mean=1.5).class_centroids()
    gram = means @ means.T
    torch.testing.assert_close(gram, 1.5**2 * DELTA * torch.eye(K, dtype=torch.float64))
    distances = torch.cdist(means, means)[~torch.eye(K, dtype=torch.bool)]
    torch.testing.assert_close(distances, torch.full_like(distances, 1.5 * math.sqrt(2 * DELTA)))


def test_samples_of_a_class_have_its_mean_and_unit_variance():
    model = build().float()
    z = model.sample_classes(torch.full((20_000,), 2), torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean(0), model.class_means[2], atol=0.05, rtol=0)
    torch.testing.assert_close(z.T.cov(), torch.eye(K * DELTA), atol=0.05, rtol=0)
    of_all = model.sample_prior(20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(of_all.mean(0), model.class_means.mean(0), atol=0.05, rtol=0)


def test_at_the_start_no_class_is_further_from_its_prior_than_another():
    torch.manual_seed(0)
    model = models.build("catvae", architecture="image-mlp-32", channels=1, latent_dim=20).eval()
    with torch.no_grad():
        kl = model.class_kl(model.heads(torch.rand(5, 1, 32, 32))[1])
    torch.testing.assert_close(kl, kl[:, :1].expand_as(kl))


@pytest.mark.parametrize("architecture", ["image-mlp-32", "mnist"])
def test_dropout_only_while_training(architecture):
    model = build(architecture=architecture, channels=1).float()
    x = torch.rand(4, 1, 32, 32)
    dropped = not torch.equal(model.train().classify(x), model.classify(x))
    assert dropped == (architecture == "image-mlp-32")
    model.eval()
    assert torch.equal(model.classify(x), model.classify(x)) and torch.equal(model(x), model(x))
    torch.testing.assert_close(model.classify(x).sum(1), torch.ones(4))
    assert model(x).shape == x.shape


def test_the_mlp_is_the_published_one():
    model = models.build("infocat-vae", architecture="image-mlp-32", channels=1, latent_dim=20)
    encoder = [(m.in_features, m.out_features) for m in model.enc.modules() if isinstance(m, nn.Linear)]
    decoder = [(m.in_features, m.out_features) for m in model.dec.modules() if isinstance(m, nn.Linear)]
    assert encoder == [(1024, 400), (400, 10 + 2 * 20)] and decoder == [(20, 400), (400, 1024)]


def test_a_latent_dimension_that_contradicts_the_classes_is_refused():
    with pytest.raises(UserError, match=r"-n 128.*n = 20.*leave -n out"):
        models.build("infocat-vae", architecture="image-mlp-32", channels=1, latent_dim=128)


def test_models_without_classes_say_so():
    model = models.build("vae", architecture="mnist", channels=1, latent_dim=4)
    for call in (lambda: model.classify(torch.rand(1, 1, 32, 32)), model.class_centroids):
        with pytest.raises(UserError, match=r"VAE has no classes of its own.*infocat-vae"):
            call()


def test_separate_blobs_are_found_without_labels():
    """Four kinds of binary vectors with 5% flipped bits: after training the classes are the kinds."""
    torch.manual_seed(1)
    model = models.build(
        "infocat-vae", architecture="mlp:32", channels=24, latent_dim=8, num_classes=4, info_weight=2.0, kl_weight=2.0
    )
    labels = torch.arange(4).repeat(100)
    kinds = F.one_hot(labels, 4).repeat_interleave(6, dim=1).float()
    data = (kinds - (torch.rand(400, 24) < 0.05).float()).abs()
    step = loop.Step(model, loop.make_optimizer(model, 3e-3), VectorDataset(data))
    for _ in range(600):
        step(torch.randint(400, (64,)))
    with torch.no_grad():
        found = model.eval().classify(data).argmax(1)
    table = torch.zeros(4, 4).index_put((found, labels), torch.ones(400), accumulate=True)
    assert sorted(table.argmax(1).tolist()) == [0, 1, 2, 3], table
    assert float(table.max(1).values.sum()) / 400 > 0.95, table


def test_balance_is_least_for_equally_large_classes():
    model, x = build("catvae", balance_weight=3.0), torch.rand(9, 6, dtype=torch.float64)
    losses = model.losses(x)
    mean = split(model, x)[0].mean(axis=0)
    assert float(losses["balance"].detach()) == pytest.approx(float((mean * np.log(mean)).sum()))
    assert float(losses["balance"].detach()) >= -math.log(K)
    others = losses["reconstruction"] + losses["kl"] + losses["negative_entropy"]
    torch.testing.assert_close(losses["loss"], others + 3 * losses["balance"])


def test_deformations_are_the_affine_maps_that_they_say(monkeypatch):
    """A bright dot goes where rotation · shear · scaling and translation, inverted by hand, send it."""
    size, rows, columns = 33, torch.tensor([8, 20]), torch.tensor([24, 10])
    x = torch.zeros(2, 1, size, size, dtype=torch.float64)
    x[torch.arange(2), 0, rows, columns] = 1.0
    monkeypatch.setattr(torch, "rand_like", torch.ones_like)  # the extreme of each
    y = deform(x)[:, 0]
    angle = math.radians(20)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = rotation @ np.array([[1, 0.3], [0, 1]]) @ np.diag([1.15, 1.15])
    for image, row, column in zip(y, rows.tolist(), columns.tolist(), strict=True):
        place = (np.array([column, row]) - size // 2) / (size / 2)  # (x, y), 1 at the border
        moved = np.linalg.solve(matrix, place - 1 / 8) * (size / 2) + size // 2
        weights = image.numpy() / image.sum().item()
        centre = [(weights.sum(axis=0) * np.arange(size)).sum(), (weights.sum(axis=1) * np.arange(size)).sum()]
        np.testing.assert_allclose(centre, moved, atol=0.3)


def test_smoothness_is_the_divergence_of_the_deformed_images_classes():
    model = build("catvae", "image-mlp-32", 1, smooth_weight=3.0).eval()
    x = torch.rand(5, 1, 32, 32, dtype=torch.float64)
    torch.manual_seed(4)
    losses = model.losses(x)
    torch.manual_seed(4)
    torch.randn(5, K * DELTA, dtype=torch.float64)  # the posterior's draw comes first
    a, b = model.classify(x).detach(), model.classify(deform(x)).detach()
    assert float(losses["smoothness"].detach()) == pytest.approx(float((a * (a / b).log()).sum(dim=1).mean()), rel=1e-9)
    others = losses["reconstruction"] + losses["kl"] + losses["negative_entropy"]
    torch.testing.assert_close(losses["loss"], others + 3 * losses["smoothness"])
    assert float(losses["smoothness"].detach()) > 0

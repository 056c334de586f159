"""SSIM against its formula in float64."""

import pytest
import torch
import torch.nn.functional as F

from models.layers.ssim import ssim


def test_equals_the_formula():
    """Equation 13 with an explicit Gaussian window of 11 x 11 pixels, over the positions where it fits."""
    torch.manual_seed(0)
    x, y = torch.rand(2, 3, 2, 16, 17, dtype=torch.float64)
    profile = torch.exp(-(torch.arange(11, dtype=torch.float64) - 5).square() / (2 * 1.5**2))
    window = torch.outer(profile, profile) / profile.sum() ** 2

    def mean(values: torch.Tensor) -> torch.Tensor:
        return F.conv2d(values.flatten(0, 1)[:, None], window[None, None]).view(3, 2, 6, 7)

    covariance = mean(x * y) - mean(x) * mean(y)
    variances = [mean(values**2) - mean(values) ** 2 for values in (x, y)]
    luminance = (2 * mean(x) * mean(y) + 1e-4) / (mean(x) ** 2 + mean(y) ** 2 + 1e-4)
    structure = (2 * covariance + 9e-4) / (sum(variances) + 9e-4)
    expected = (luminance * structure).mean(dim=(1, 2, 3))
    torch.testing.assert_close(ssim(x, y), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(ssim(x.float(), y.float()), expected.float(), rtol=1e-4, atol=1e-6)


def test_images_beside_themselves_noise_and_a_constant():
    x = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert ssim(x, x).tolist() == pytest.approx([1, 1, 1])
    assert ssim(x, torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))).max() < 0.3
    # Constant images have no variance: only the term of the means is left.
    a, b, c = 0.2, 0.7, 0.01**2
    flat = [torch.full((2, 3, 32, 32), value) for value in (a, b)]
    expected = (2 * a * b + c) / (a * a + b * b + c)
    assert ssim(*flat).tolist() == pytest.approx([expected] * 2, rel=1e-3)


def test_bf16_autocast_does_not_reach_it():
    x, y = torch.rand(2, 2, 1, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ssim(x, y)
    assert torch.equal(inside, ssim(x, y))

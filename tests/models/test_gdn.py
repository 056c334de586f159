"""GDN against its formula, element by element in float64."""

import pytest
import torch

from models.layers.gdn import GDN
from models.networks import build_networks


@pytest.fixture
def parameters() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.rand(5, dtype=torch.float64) + 0.1, torch.rand(5, 5, dtype=torch.float64)


def layer(parameters: tuple[torch.Tensor, torch.Tensor], inverse: bool) -> GDN:
    beta, gamma = parameters
    gdn = GDN(5, inverse=inverse).double()
    with torch.no_grad():
        gdn.beta_root.copy_((beta + 2**-36).sqrt())
        gdn.gamma_root.copy_((gamma + 2**-36).sqrt())
    return gdn


@pytest.mark.parametrize("inverse", [False, True])
def test_equals_the_formula(parameters, inverse):
    beta, gamma = parameters
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    y = layer(parameters, inverse)(x).detach()
    for b, i, row, column in torch.cartesian_prod(*(torch.arange(size) for size in x.shape)).tolist():
        pixel = x[b, :, row, column]
        pool = float(beta[i] + sum(gamma[i, j] * pixel[j] ** 2 for j in range(5))) ** 0.5
        expected = pixel[i] * pool if inverse else pixel[i] / pool
        assert float(y[b, i, row, column]) == pytest.approx(float(expected), rel=1e-12)


def test_the_inverse_undoes_small_inputs(parameters):
    """With β = 1 the relative error is of fourth order: a tenth of the input, a ten-thousandth of the error."""
    beta, gamma = torch.ones(5, dtype=torch.float64), parameters[1]
    forward, inverse = layer((beta, gamma), False), layer((beta, gamma), True)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    errors = [(inverse(forward(scale * x)) - scale * x).norm() / (scale * x).norm() for scale in (0.1, 0.01)]
    assert errors[0] < 1e-2
    assert 5e3 < errors[0] / errors[1] < 2e4


def test_before_training_channels_do_not_mix():
    gdn = GDN(3)
    x = torch.randn(1, 3, 2, 2)
    torch.testing.assert_close(gdn(x), x / torch.sqrt(1 + 0.1 * x.square()), rtol=1e-5, atol=1e-6)


def test_parameters_stay_in_bounds_after_large_steps():
    torch.manual_seed(0)
    gdn = GDN(4)
    optimizer = torch.optim.SGD(gdn.parameters(), lr=10.0)
    for _ in range(5):
        optimizer.zero_grad()
        (gdn(torch.randn(8, 4, 3, 3)) * torch.randn(4, 1, 1)).sum().backward()
        optimizer.step()
        assert (gdn.beta > 0).all() and (gdn.gamma >= 0).all()
        assert torch.isfinite(gdn(torch.randn(8, 4, 3, 3))).all()


def test_a_parameter_at_its_bound_can_come_back():
    """Where the loss falls with β, descent raises a stored value that a step has thrown below the bound."""
    gdn = GDN(2)
    with torch.no_grad():
        gdn.beta_root.fill_(-1.0)
    x = torch.ones(1, 2, 1, 1)
    gdn(x).sum().backward()  # the output falls as β rises, so this gradient is negative
    assert (gdn.beta_root.grad < 0).all()
    gdn.beta_root.grad = None
    (-gdn(x).sum()).backward()
    assert (gdn.beta_root.grad == 0).all()


@pytest.mark.parametrize(("architecture", "channels", "size"), [("gdn-32", 1, 32), ("gdn-64", 3, 64)])
def test_the_celeba_network(architecture, channels, size):
    """Shapes of the published network, which has 64 x 4 x 4 features under its hidden layer at 64 pixels."""
    encoder, decoder = build_networks(architecture, channels, 16, code_width=32)
    x = torch.rand(2, channels, size, size)
    assert encoder(x).shape == (2, 32)
    assert decoder(torch.randn(2, 16)).shape == x.shape
    assert encoder.hidden.in_features == decoder.fc.out_features == 64 * (size // 16) ** 2
    assert [type(layer).__name__ for layer in encoder.dcnn] == ["Conv2d", "GDN"] * 3 + ["Conv2d"]
    assert [layer.out_channels for layer in decoder.dcnn if hasattr(layer, "out_channels")] == [64, 64, 32, channels]


def test_forward_derivatives_pass_through_gdn():
    """Isometry needs exact Jacobian-vector products of a decoder with inverse GDN."""
    torch.manual_seed(0)
    gdn = GDN(3, inverse=True).double()
    x, v = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
    exact = torch.func.jvp(gdn, (x,), (v,))[1]
    torch.testing.assert_close(exact, (gdn(x + 1e-6 * v) - gdn(x - 1e-6 * v)) / 2e-6, rtol=1e-6, atol=1e-8)

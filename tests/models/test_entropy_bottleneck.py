"""The factorised density against the published equations, evaluated independently in float64 with NumPy."""

import numpy as np
import pytest
import torch

from models.layers.entropy_bottleneck import EntropyBottleneck
from models.layers.lower_bound import lower_bound


def published_log_likelihood(bottleneck: EntropyBottleneck, x: np.ndarray) -> np.ndarray:
    """log(c(x + 1/2) - c(x - 1/2)) of ``(B, C)`` values in float64, one element at a time.

    The cumulative is 1 / (1 + exp(-u)); the difference of two of them is written as
    (exp(-l) - exp(-u)) / ((1 + exp(-u)) (1 + exp(-l))), which has no cancellation in the upper tail.
    """

    def numbers(parameter):
        return parameter.detach().double().numpy()

    def logit(value: float, channel: int) -> float:
        hidden = np.array([[value]])
        for k in range(len(bottleneck.matrices)):
            matrix = np.log1p(np.exp(numbers(bottleneck.matrices[k])[channel]))
            hidden = matrix @ hidden + numbers(bottleneck.biases[k])[channel]
            if k < len(bottleneck.factors):
                hidden = hidden + np.tanh(numbers(bottleneck.factors[k])[channel]) * np.tanh(hidden)
        return float(hidden[0, 0])

    result = np.empty(x.shape)
    for (row, channel), value in np.ndenumerate(x):
        lower, upper = logit(value - 0.5, channel), logit(value + 0.5, channel)
        # log of the numerator, then of the two factors of the denominator
        numerator = -lower + np.log1p(-np.exp(lower - upper))
        result[row, channel] = numerator - np.logaddexp(0, -upper) - np.logaddexp(0, -lower)
    return result


@pytest.fixture
def bottleneck() -> EntropyBottleneck:
    """Three channels with every parameter away from its initial value."""
    torch.manual_seed(0)
    bottleneck = EntropyBottleneck(3, init_scale=3.0)
    with torch.no_grad():
        for parameter in bottleneck.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return bottleneck


def test_equals_the_published_equations_also_far_out(bottleneck):
    x = np.concatenate([np.linspace(-6, 6, 25), [-50.0, 50.0]])[:, None].repeat(3, axis=1)
    expected = published_log_likelihood(bottleneck, x)
    found = bottleneck.log_likelihood(torch.tensor(x, dtype=torch.float32)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_both_tails_are_as_precise_as_the_middle():
    """A density of width 2: 50 units out its likelihood is 1e-11, where 1 - c(x) would round to 0 in float32."""
    torch.manual_seed(1)
    bottleneck = EntropyBottleneck(2, init_scale=2.0)
    x = np.array([[-50.0, 50.0], [50.0, -50.0]])
    expected = published_log_likelihood(bottleneck, x)
    assert (expected < np.log(1e-9)).all()
    found = bottleneck.log_likelihood(torch.tensor(x, dtype=torch.float32))
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5)


def test_likelihoods_of_the_integers_sum_to_one(bottleneck):
    integers = torch.arange(-4000.0, 4001.0)[:, None].expand(-1, 3)
    likelihood = bottleneck.double().log_likelihood(integers.double()).exp()
    torch.testing.assert_close(likelihood.sum(0), torch.ones(3, dtype=torch.float64), atol=1e-9, rtol=0)


def test_gradients_by_finite_differences(bottleneck):
    bottleneck.double()
    x = torch.tensor([[-2.3, 0.1, 3.7], [40.0, -40.0, 0.6]], dtype=torch.float64, requires_grad=True)
    parameters = list(bottleneck.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: bottleneck.log_likelihood(x), (x, *parameters))


def test_energy_and_samples_are_in_units_of_the_width():
    torch.manual_seed(0)
    unit, wide = EntropyBottleneck(3), EntropyBottleneck(3, width=0.2)
    wide.load_state_dict(unit.state_dict())
    z = torch.randn(5, 3)
    torch.testing.assert_close(wide.energy(z), -unit.log_likelihood(z / 0.2).sum(dim=1))
    draws = [each.sample(7, torch.Generator().manual_seed(0)) for each in (unit, wide)]
    torch.testing.assert_close(draws[1], 0.2 * draws[0])


def test_half_precision_context_changes_nothing(bottleneck):
    x = 3 * torch.randn(6, 3)
    expected = bottleneck.log_likelihood(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(bottleneck.log_likelihood(x), expected)


def test_learns_a_known_density():
    """Cross-entropy within 0.05 bit of the entropy of two Gaussians blurred by the unit interval."""
    torch.manual_seed(0)
    means, deviation = torch.tensor([-6.0, 5.0]), torch.tensor([1.5, 3.0])

    def blurred(num: int) -> torch.Tensor:
        index = torch.randint(0, 2, (num,))
        return (means[index] + deviation[index] * torch.randn(num) + torch.rand(num) - 0.5)[:, None]

    def true_log_likelihood(x: torch.Tensor) -> torch.Tensor:
        normal = torch.distributions.Normal(means, deviation)
        return (0.5 * (normal.cdf(x + 0.5) - normal.cdf(x - 0.5))).sum(1).log()

    bottleneck = EntropyBottleneck(1)
    optimizer = torch.optim.Adam(bottleneck.parameters(), lr=2e-2)
    for _ in range(800):
        x = blurred(1000)
        loss = -bottleneck.log_likelihood(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = blurred(100_000)
    with torch.no_grad():
        excess = (true_log_likelihood(x) - bottleneck.log_likelihood(x)[:, 0]).mean() / np.log(2)
    assert -0.01 < excess < 0.05


def test_the_lower_bound_lets_go_again():
    x = torch.tensor([0.5, 0.5, 2.0, 2.0], requires_grad=True)
    y = lower_bound(x, 1.0)
    assert y.tolist() == [1.0, 1.0, 2.0, 2.0]
    y.backward(torch.tensor([-3.0, 3.0, -3.0, 3.0]))
    # Below the bound only the gradient that raises x passes; above it, both do.
    assert x.grad.tolist() == [-3.0, 0.0, -3.0, 3.0]

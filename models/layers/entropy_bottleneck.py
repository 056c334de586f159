"""The factorised density of learned image compression: one free-form cumulative distribution per channel.

Source: Ballé et al. 2018, "Variational image compression with a scale hyperprior", arXiv 1802.01436, appendix 6.1.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.lower_bound import lower_bound

MOST_DOUBLINGS = 20  # of the bracket of a sample: draws up to a million units out
BISECTIONS = 30  # of that bracket, down to a thousandth of a unit


class EntropyBottleneck(nn.Module):
    """Learned density of independent channels, blurred by uniform noise of width 1.

    The cumulative distribution of a channel is c(x) = sigmoid(f_K(... f_1(x))), where

        f_k(x) = g_k(softplus(H_k) x + b_k),    g_k(x) = x + tanh(a_k) * tanh(x),    g_K(x) = x

    (equations 27 to 33). Every f_k rises in x, so c is a cumulative distribution whatever the parameters are. The
    likelihood of x is c(x + 1/2) - c(x - 1/2): the probability of the unit interval around x, which is at once the
    density of x after uniform noise and the probability of x as an integer symbol.

    Args:
        channels: C.
        init_scale: rough width of the density before training; the codes should begin inside it.
        filters: widths of the hidden layers, between one input and one output.
    """

    likelihood_bound = 1e-9

    def __init__(self, channels: int, init_scale: float = 10.0, filters: tuple[int, ...] = (3, 3, 3, 3)):
        super().__init__()
        self.channels = channels
        widths = (1, *filters, 1)
        layers = len(widths) - 1
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in pairwise(widths):
            # softplus of this is the slope that makes the product of all layers 1 / init_scale.
            start = math.log(math.expm1(init_scale ** (-1 / layers) / outputs))
            self.matrices.append(nn.Parameter(torch.full((channels, outputs, inputs), start)))
            self.biases.append(nn.Parameter(torch.rand(channels, outputs, 1) - 0.5))
            if len(self.factors) < layers - 1:
                self.factors.append(nn.Parameter(torch.zeros(channels, outputs, 1)))

    def logits_cumulative(self, x: Tensor) -> Tensor:
        """f_K(... f_1(x)), the logits of the cumulative distribution. ``(C, 1, N)`` to the same shape."""
        for k, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            x = torch.matmul(F.softplus(matrix), x) + bias
            if k < len(self.factors):
                x = x + torch.tanh(self.factors[k]) * torch.tanh(x)
        return x

    def interval_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the cumulative distribution half a unit below and above x, each of the shape of x, ``(B, C, ...)``.

        Never in half precision: their difference is what counts.
        """
        with torch.autocast(x.device.type, enabled=False):
            columns = x.to(self.biases[0].dtype).movedim(1, 0)
            flat = columns.reshape(self.channels, 1, -1)
            lower, upper = self.logits_cumulative(flat - 0.5), self.logits_cumulative(flat + 0.5)
        return tuple(logits.view(columns.shape).movedim(0, 1) for logits in (lower, upper))

    def likelihood(self, x: Tensor) -> Tensor:
        """Probability of the unit interval around each element of x ``(B, C, ...)``, at least ``likelihood_bound``.

        In the upper tail both cumulative values round to 1. The difference is therefore taken between their
        mirror images, on whichever side the sigmoid is small (the sign trick of the published code).
        """
        lower, upper = self.interval_logits(x)
        sign = torch.where(lower + upper > 0, -1.0, 1.0)
        probability = (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()
        return lower_bound(probability, self.likelihood_bound)

    def log_likelihood(self, x: Tensor) -> Tensor:
        """Logarithm of the unbounded likelihood, natural units, shape of x; finite however far out x lies.

        Uses sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u)), each factor of which has a stable
        logarithm. Codes far outside the density keep their gradient, where the bounded likelihood loses it, and
        outliers keep their order.
        """
        lower, upper = self.interval_logits(x)
        # A million units out the two logits can round to the same number.
        difference = lower_bound(upper - lower, self.likelihood_bound)
        return F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-difference))

    @torch.no_grad()
    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """``(num, C)`` draws by inverting the cumulative distribution; the generator lives on the CPU."""
        uniform = torch.rand(num, self.channels, generator=generator).clamp(1e-6, 1 - 1e-6)
        target = torch.logit(uniform).T[:, None].to(self.biases[0])
        low, high = torch.full_like(target, -1.0), torch.full_like(target, 1.0)
        for _ in range(MOST_DOUBLINGS):
            low = torch.where(self.logits_cumulative(low) > target, 2 * low, low)
            high = torch.where(self.logits_cumulative(high) < target, 2 * high, high)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            above = self.logits_cumulative(middle) > target
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return ((low + high) / 2)[:, 0].T

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x with uniform noise in training, rounded otherwise, and its likelihood; both of the shape of x."""
        x = x + torch.rand_like(x) - 0.5 if self.training else x.round()
        return x, self.likelihood(x)

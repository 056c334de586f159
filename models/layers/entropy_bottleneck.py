"""The factorised density of learned image compression: one free-form cumulative distribution per channel.

Source: Ballé et al. 2018, "Variational image compression with a scale hyperprior", arXiv 1802.01436, appendix 6.1.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.lower_bound import lower_bound

WIDTHS = (1, 3, 3, 3, 3, 1)  # of the layers of a channel's cumulative distribution
SMALLEST_DIFFERENCE = 1e-9  # of two logits of the cumulative distribution
MOST_DOUBLINGS = 20  # of the bracket of a sample: draws up to a million units out
BISECTIONS = 30  # of that bracket, down to a thousandth of a unit


class EntropyBottleneck(nn.Module):
    """Learned density of independent channels, blurred by uniform noise of width w.

    The cumulative distribution of a channel is c(x) = sigmoid(f_K(... f_1(x))), where

        f_k(x) = g_k(softplus(H_k) x + b_k),    g_k(x) = x + tanh(a_k) * tanh(x),    g_K(x) = x

    (equations 27 to 33). Every f_k rises in x, so c is a cumulative distribution whatever the parameters are. The
    likelihood of x is c(x + 1/2) - c(x - 1/2), x in units of w: the probability of the interval of width w around x.

    ``init_scale`` is the rough width of the density before training, in units of w: the codes should begin inside it.
    """

    def __init__(self, channels: int, width: float = 1.0, init_scale: float = 10.0):
        super().__init__()
        self.channels, self.width = channels, width
        layers = len(WIDTHS) - 1
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in pairwise(WIDTHS):
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

    def log_likelihood(self, x: Tensor) -> Tensor:
        """Log-probability of the unit interval around each element of x, in nats; finite however far out x lies.

        Uses sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u)), each factor of which has a stable
        logarithm: codes far outside the density have a gradient, and outliers keep their order.
        """
        with torch.autocast(x.device.type, enabled=False):  # the difference of the two logits is what counts
            columns = x.to(self.biases[0].dtype).movedim(1, 0)
            flat = columns.reshape(self.channels, 1, -1)
            logits = self.logits_cumulative(flat - 0.5), self.logits_cumulative(flat + 0.5)
        lower, upper = (each.view(columns.shape).movedim(0, 1) for each in logits)
        # A million units out the two logits can round to the same number.
        difference = lower_bound(upper - lower, SMALLEST_DIFFERENCE)
        return F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-difference))

    def energy(self, z: Tensor) -> Tensor:
        """−log of the probability of the interval of width w around codes ``(B, C)``, nats ``(B,)``."""
        return -self.log_likelihood(z / self.width).sum(dim=1)

    @torch.no_grad()
    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """``(num, C)`` draws by inverting the cumulative distribution; the generator is on the CPU."""
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
        return self.width * ((low + high) / 2)[:, 0].T

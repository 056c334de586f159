"""Distances between sets of features, in float64, from torchmetrics.

The features of a set are computed once (``experiments.fid_features``), and all metrics from the same ones. torchmetrics
is imported in the functions: loading it takes longer than loading PyTorch, and --help need not wait for it.
"""

import warnings

import torch
from torch import Tensor, nn

SUBSETS, SUBSET_SIZE = 100, 1000  # of KID (Bińkowski et al. 2018, arXiv 1801.01401, section 4)


class PrecomputedFeatures(nn.Identity):
    """The network of a torchmetrics metric whose inputs are features already: the identity."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """|μ1 − μ2|² + tr(Σ1 + Σ2 − 2 (Σ1 Σ2)^½) of two sets of features ``(N, F)``, ``(M, F)``, N, M ≥ 2.

    With Inception features this is FID (Heusel et al. 2017, arXiv 1706.08500, equation 6).
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(PrecomputedFeatures(real.shape[1])).to(real.device).set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    return max(float(metric.compute()), 0.0)  # by rounding, the distance of a set to itself may be slightly negative


def kernel_distance(real: Tensor, fake: Tensor, seed: int = 0) -> float:
    """Squared maximum mean discrepancy of features ``(N, F)``, ``(M, F)`` under (x·y / F + 1)³, averaged over subsets.

    With Inception features this is KID (Bińkowski et al. 2018, arXiv 1801.01401). Unbiased, so that it may come out
    slightly negative. Subsets of 1,000 features, or of all where there are fewer.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(SUBSET_SIZE, len(real), len(fake))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about the memory for the features, which are small
        metric = KernelInceptionDistance(PrecomputedFeatures(real.shape[1]), subsets=SUBSETS, subset_size=size)
    metric.to(real.device).set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return float(metric.compute()[0])

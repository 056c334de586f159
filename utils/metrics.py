"""Distances between sets of features, in float64, and how well clusters found without labels agree with the labels.

torchmetrics and scikit-learn are imported where they are used: --help need not wait for them.
"""

import warnings

import numpy as np
import torch
from torch import Tensor, nn

SUBSETS, SUBSET_SIZE = 100, 1000  # of KID (Bińkowski et al. 2018, arXiv 1801.01401, section 4)


def metric_of(kind, real: Tensor, fake: Tensor, **options):
    """A torchmetrics metric of features ``(N, F)``, ``(M, F)`` instead of images: its network is the identity."""
    network = nn.Identity()
    network.num_features = real.shape[1]  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # KID's about the memory for the features, which are small
        metric = kind(network, **options).to(real.device).set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    return metric


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """|μ1 − μ2|² + tr(Σ1 + Σ2 − 2 (Σ1 Σ2)^½) of two sets of features ``(N, F)``, ``(M, F)``, N, M ≥ 2.

    With Inception features this is FID (Heusel et al. 2017, arXiv 1706.08500, equation 6).
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    # By rounding, the distance of a set to itself may be slightly negative.
    return max(float(metric_of(FrechetInceptionDistance, real, fake).compute()), 0.0)


def kernel_distance(real: Tensor, fake: Tensor, seed: int = 0) -> float:
    """Squared maximum mean discrepancy of features ``(N, F)``, ``(M, F)`` under (x·y / F + 1)³, averaged over subsets.

    With Inception features this is KID (Bińkowski et al. 2018, arXiv 1801.01401). Unbiased, so that it may come out
    slightly negative. Subsets of 1,000 features, or of all where there are fewer.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(SUBSET_SIZE, len(real), len(fake))
    metric = metric_of(KernelInceptionDistance, real, fake, subsets=SUBSETS, subset_size=size)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return float(metric.compute()[0])


def confusion(found: np.ndarray, labels: np.ndarray, clusters: int, classes: int) -> np.ndarray:
    """``(clusters, classes)`` counts: how many images of each class lie in each cluster."""
    counts = np.zeros((clusters, classes), dtype=np.int64)
    np.add.at(counts, (found, labels), 1)
    return counts


def match(counts: np.ndarray) -> dict[int, int]:
    """The one-to-one assignment of clusters to classes that most images agree with (Kuhn 1955, "The Hungarian method").

    With more clusters than classes some clusters stay without one, and the other way round.
    """
    from scipy.optimize import linear_sum_assignment

    return {int(cluster): int(label) for cluster, label in zip(*linear_sum_assignment(-counts), strict=True)}


def agreement(found: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Clustering accuracy under ``match``, normalised mutual information and adjusted Rand index."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return {
        "accuracy": sum(int(counts[pair]) for pair in match(counts).items()) / len(labels),
        "normalized_mutual_information": float(normalized_mutual_info_score(labels, found)),
        "adjusted_rand_index": float(adjusted_rand_score(labels, found)),
    }

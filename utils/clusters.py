"""How well clusters found without labels agree with the labels."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score


def confusion(found: np.ndarray, labels: np.ndarray, clusters: int, classes: int) -> np.ndarray:
    """``(clusters, classes)`` counts: how many images of each class lie in each cluster."""
    counts = np.zeros((clusters, classes), dtype=np.int64)
    np.add.at(counts, (found, labels), 1)
    return counts


def match(counts: np.ndarray) -> dict[int, int]:
    """The one-to-one assignment of clusters to classes that most images agree with (Kuhn 1955, "The Hungarian method").

    With more clusters than classes some clusters stay without one, and the other way round.
    """
    return {int(cluster): int(label) for cluster, label in zip(*linear_sum_assignment(-counts), strict=True)}


def agreement(found: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Clustering accuracy under ``match``, normalised mutual information and adjusted Rand index."""
    matched = sum(int(counts[pair]) for pair in match(counts).items())
    return {
        "accuracy": matched / len(labels),
        "normalized_mutual_information": float(normalized_mutual_info_score(labels, found)),
        "adjusted_rand_index": float(adjusted_rand_score(labels, found)),
    }

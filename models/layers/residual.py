"""What a reconstruction says of its input beside the code: features that a density may be over too.

Source: Zong et al. 2018, "Deep Autoencoding Gaussian Mixture Model for Unsupervised Anomaly Detection" (DAGMM),
section 3.2; RaDOGAGA (arXiv 1910.04329), section 5.3, has the same features.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.flags import Flag

RESIDUAL_FEATURES = 2  # relative Euclidean distance and cosine similarity
SMALLEST_NORM = 1e-3  # of an input in the relative distance: a sample of zeros has no relative error

Residual = Annotated[bool, Flag("the mixture is over z, relative error and cosine, not z alone", switch=True)]


def append_residual(z: Tensor, x: Tensor, decoded: Tensor) -> Tensor:
    """``(B, n + 2)``: the code ``(B, n)``, ‖x − x̂‖ / ‖x‖ and cos(x, x̂) of samples of any shape ``(B, ...)``."""
    x, decoded = x.flatten(1), decoded.flatten(1)
    distance = torch.linalg.vector_norm(x - decoded, dim=1)
    relative = distance / torch.linalg.vector_norm(x, dim=1).clamp(min=SMALLEST_NORM)
    return torch.cat([z, relative[:, None], F.cosine_similarity(x, decoded)[:, None]], dim=1)

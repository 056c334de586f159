"""Rank reduction autoencoders: the codes of a batch, as a matrix, are cut to rank k by their singular values.

Source: Mounayer, Rodriguez, Ghnatios, Farhat, Chinesta 2024, "Rank Reduction Autoencoders", arXiv 2405.13980, the
strong formulation, and its released code (JadM133/RRAEs). What is ours: docs/models.md.
"""

from typing import Annotated

import torch
from torch import Tensor

from models.ae import AE
from models.networks.base import full_precision
from utils.flags import Flag, natural, non_negative_float

BLOCK = 10  # steps whose mean loss decides about the rank
SETTLED = 0.05  # relative change of that mean below which the loss stagnates, as released
PATIENCE = 20  # blocks: 200 steps, as released for the first stagnation; 500 there for the last


class Truncation(torch.autograd.Function):
    """The best approximation of rank k of a matrix ``(B, n)``: its truncated singular value decomposition.

    The derivative is exact. Unlike one that goes through the singular vectors, it has no differences between kept
    singular values, so that equal ones do no harm; it is unbounded where s_k = s_{k+1}, as the truncation jumps there.
    """

    @staticmethod
    def forward(ctx, z: Tensor, rank: int) -> Tensor:
        u, s, vh = torch.linalg.svd(z, full_matrices=False)
        ctx.save_for_backward(u, s, vh)
        ctx.rank = rank
        return (u[:, :rank] * s[:rank]) @ vh[:rank]

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:
        # In the basis of the singular vectors, D = Uᵀ dZ V: kept rows and columns pass, the entries between a kept i
        # and a dropped j mix as (s_i² D_ij + s_i s_j D_ji) / (s_i² - s_j²). This map is its own adjoint.
        u, s, vh = ctx.saved_tensors
        (g,), k = gradients, ctx.rank
        d = u.T @ g @ vh.T
        kept, dropped = s[:k, None], s[None, k:]
        gap = (kept.square() - dropped.square()).clamp(min=torch.finfo(s.dtype).tiny)
        straight, crossed = kept.square() / gap, kept * dropped / gap
        inner = torch.zeros_like(d)
        inner[:k, :k] = d[:k, :k]
        inner[:k, k:] = straight * d[:k, k:] + crossed * d[k:, :k].T
        inner[k:, :k] = (straight * d[k:, :k].T + crossed * d[:k, k:]).T
        left, right = g @ vh[:k].T, u[:, :k].T @ g  # parts outside the span of U or of V, where s_j = 0
        return u @ inner @ vh + (left - u @ (u.T @ left)) @ vh[:k] + u[:, :k] @ (right - right @ vh.T @ vh), None


class RRAE(AE):
    """Autoencoder whose decoder sees the codes of a batch Z ``(B, n)`` as their best approximation of rank k.

        loss = mean squared error of decode(Z_k),  Z_k = Σ_{i ≤ k} s_i u_i v_iᵀ,  Z = U S Vᵀ, not centred

    A single image has no batch: outside training the code is projected on k directions that are the same for all. The
    released code takes them from the codes of the training set after training; here they are the leading eigenvectors
    of a running mean of Zᵀ Z / B over the training batches, so that every checkpoint has them.

    With ``adaptive_rank`` k starts at ``rank`` (0: n). Once the loss has stagnated for ``PATIENCE`` blocks of steps, or
    reached ``target_loss``, that is the target, and k falls by one each time that the loss of a block reaches it; when
    none does for ``PATIENCE`` blocks, k rises by one and stays (the paper's adaptive algorithm; the released one then
    also takes back the weights from before).

    On a CUDA device the steps run operation by operation, after a warning of the loop: the decomposition waits for the
    host. A batch smaller than k is not truncated.
    """

    title = "RRAE (arXiv 2405.13980): truncated SVD of a batch's codes"
    second_moment: Tensor  # (n, n), running mean of Zᵀ Z / B
    kept: Tensor  # k
    search: Tensor  # adaptive rank: phase, target, last mean, sum and steps of the block, blocks without progress

    def __init__(
        self,
        architecture: str,
        channels: int,
        latent_dim: int,
        rank: Annotated[int, Flag("k, singular values that are kept; 0: n, for --adaptive-rank", natural)] = 0,
        adaptive_rank: Annotated[bool, Flag("lower the rank while the loss allows it", switch=True)] = False,
        target_loss: Annotated[
            float,
            Flag("loss that the adaptive rank keeps, if known", non_negative_float, needs=("adaptive_rank", True)),
        ] = 0.0,
        momentum: Annotated[float, Flag("of the running mean of the codes' products", non_negative_float)] = 0.05,
    ):
        super().__init__(architecture, channels, latent_dim)
        self.adaptive_rank, self.target_loss, self.momentum = adaptive_rank, target_loss, momentum
        self.rank = min(rank or latent_dim, latent_dim)  # the first one, where it is adaptive
        self.register_buffer("second_moment", torch.zeros(latent_dim, latent_dim))
        self.register_buffer("kept", torch.tensor(self.rank))
        self.register_buffer("search", torch.zeros(6, dtype=torch.float64))

    def current_rank(self) -> int:
        return int(self.kept) if self.adaptive_rank else self.rank

    def encode(self, x: Tensor) -> Tensor:
        z = full_precision(self.enc(x))
        if self.training:
            return z
        basis = torch.linalg.eigh(self.second_moment.double())[1][:, -self.current_rank() :].to(z.dtype)
        with torch.autocast(z.device.type, enabled=False):  # bfloat16 would round the codes
            return z @ basis @ basis.T

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        z = self.encode(x)
        if self.training:
            with torch.autocast(z.device.type, enabled=False):
                moment = z.detach().T @ z.detach() / len(z)
                self.second_moment.lerp_(moment.float(), self.momentum)
                z = Truncation.apply(z, min(self.current_rank(), *z.shape))
        reconstruction = torch.nn.functional.mse_loss(self.decode(z), x)
        losses = {"loss": reconstruction, "reconstruction": reconstruction}
        if self.adaptive_rank:
            if self.training:
                self.adapt(float(reconstruction.detach()))
            losses["rank"] = self.kept.float()
        return losses

    def adapt(self, loss: float) -> None:
        """Count a step of this loss; at the end of a block of steps, decide about the rank."""
        phase, target, last, total, steps, stagnant = self.search.tolist()
        total, steps = total + loss, steps + 1
        if steps == BLOCK:
            mean, total, steps = total / BLOCK, 0.0, 0.0
            if phase == 0:  # towards the first stagnation
                stagnant += abs(mean - last) < SETTLED * last
                if mean <= self.target_loss or stagnant == PATIENCE:
                    phase, target, stagnant = 1.0, max(mean, self.target_loss), 0.0
            elif phase == 1:
                if mean <= target and self.kept > 1:
                    self.kept -= 1
                    stagnant = 0.0
                else:
                    stagnant += 1
                if stagnant == PATIENCE:
                    self.kept.clamp_(max=self.latent_dim - 1).add_(1)
                    phase = 2.0
            last = mean
        self.search.copy_(torch.tensor([phase, target, last, total, steps, stagnant]))

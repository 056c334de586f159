"""A lower bound that lets go again: the gradient passes wherever descent would lead back above the bound.

Source: Ballé et al. 2018 (arXiv 1802.01436), whose densities and whose GDN parameters are kept valid by it.
"""

import torch
from torch import Tensor


class LowerBound(torch.autograd.Function):
    """``max(x, bound)``. Unlike ``clamp``, an element below the bound still gets a gradient that would raise it."""

    @staticmethod
    def forward(x: Tensor, bound: float) -> Tensor:
        return x.clamp(min=bound)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, bound = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        ctx.bound = bound

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        # A negative gradient makes descent increase x: that is always allowed.
        return gradient * ((x >= ctx.bound) | (gradient < 0)), None

    @staticmethod
    def jvp(ctx, tangent: Tensor | None, _: None) -> Tensor | None:
        (x,) = ctx.saved_tensors
        return None if tangent is None else tangent * (x >= ctx.bound)


lower_bound = LowerBound.apply

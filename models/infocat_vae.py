"""InfoCatVAE: a mode of the prior for each class, soft clustering, and classes that the encoder finds in its samples.

Source: Pineau & Lelarge 2018, "InfoCatVAE: Representation Learning with Categorical Variational Autoencoders",
arXiv 1806.08240.
"""

from collections.abc import Mapping
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Autoencoder, sample_gaussian
from models.layers.deform import deform
from models.networks.base import full_precision
from utils.errors import UserError
from utils.flags import Flag, finite_float, non_negative_float, positive

DROPOUT = 0.25  # of the MLP's hidden layers, as in the released code
GENERATED = 10  # images of each class in a step, as in the released code
INFO_WEIGHT = 100 / 128  # per image; the released code adds 100 times the cross-entropy to a sum over 128 images


class CatVAE(Autoencoder):
    """VAE with K classes: q(c | x) is a softmax a(x), q(z | x, c) and p(z | c) are Gaussians.

    The prior's mean of class c is λ on the class's own δ axes and 0 elsewhere, so that the means of two
    classes are orthogonal and all equally far apart. The features h of an image give the class and, together with
    it, the posterior: mean and log-variance are linear in (h, c), so a table of K rows added to one vector gives those
    of all classes at once. The image is decoded from one draw of the posterior at the soft class a(x).

    The loss of an image is the binary cross-entropy summed over its pixels plus, weighted by γ,
    ``Σ_c a_c log a_c`` and, weighted by β, ``Σ_c a_c KL(N(μ_c(x), σ_c(x)) || N(m_c, I))``; β = γ = 1 is the evidence
    lower bound, and below γ = 0 the classes are to be certain. Two further terms are ours.

    Args:
        balance_weight: of ``Σ_c ā_c log ā_c``, ā the mean of a over the batch: classes of equal size.
        smooth_weight: of the divergence of a from that of the image under ``deform``, in nats; for images.
    """

    title = "CatVAE (arXiv 1806.08240): a mode of the prior for each of K classes"
    bernoulli = True
    default_arch = "mlp"
    class_means: Tensor

    def __init__(
        self,
        architecture: str,
        channels: int,
        latent_dim: int,
        num_classes: Annotated[int, Flag("K, classes to find", positive)] = 10,
        sub_dim: Annotated[int, Flag("δ, dimensions of the code for each class; n = K δ", positive)] = 2,
        prior_mean: Annotated[float, Flag("λ, mean of a class's prior on its own axes", non_negative_float)] = 2.0,
        kl_weight: Annotated[float, Flag("β, weight of the KL to the class's prior", non_negative_float)] = 1.0,
        entropy_weight: Annotated[float, Flag("γ, weight of Σ a log a, the classes' entropy", finite_float)] = 1.0,
        balance_weight: Annotated[float, Flag("weight of equally large classes (ours)", non_negative_float)] = 0.0,
        smooth_weight: Annotated[
            float, Flag("weight of classes that deforming keeps (ours)", non_negative_float)
        ] = 0.0,
    ):
        if latent_dim != num_classes * sub_dim:
            raise UserError(
                f"-n {latent_dim}: the code of {num_classes} classes (--num-classes) of {sub_dim} dimensions "
                f"(--sub-dim) has n = {num_classes * sub_dim}: leave -n out"
            )
        super().__init__(architecture, channels, latent_dim, num_classes + 2 * latent_dim, nn.Sigmoid(), DROPOUT)
        self.num_classes = num_classes
        self.kl_weight, self.entropy_weight = kl_weight, entropy_weight
        self.balance_weight, self.smooth_weight = balance_weight, smooth_weight
        self.classes = nn.Linear(num_classes, 2 * latent_dim, bias=False)
        # (K, n): row c is λ on the axes of class c.
        means = prior_mean * torch.eye(num_classes).repeat_interleave(sub_dim, dim=1)
        self.register_buffer("class_means", means, persistent=False)
        with torch.no_grad():
            # At the start the posterior of a class is its prior. From a random table no class is near its prior, the
            # divergence is least where all images share one class, and the others are never used again.
            self.classes.weight.copy_(torch.cat([means, torch.zeros_like(means)], dim=1).T)

    @classmethod
    def default_latent_dim(cls, options: Mapping) -> int:
        return options["num_classes"] * options["sub_dim"]

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the classes ``(B, K)``; mean and log-variance without the class's part ``(B, 2n)``."""
        features = full_precision(self.enc(x))
        return F.log_softmax(features[:, : self.num_classes], dim=1), features[:, self.num_classes :]

    def classify(self, x: Tensor) -> Tensor:
        """q(c | x) ``(B, K)``."""
        return self.heads(x)[0].exp()

    def encode(self, x: Tensor) -> Tensor:
        log_a, base = self.heads(x)
        return (base + self.classes(log_a.exp()))[:, : self.latent_dim]

    def sample_codes(self, x: Tensor) -> Tensor:
        log_a, base = self.heads(x)
        return sample_gaussian(*(base + self.classes(log_a.exp())).chunk(2, dim=1))

    def class_kl(self, base: Tensor) -> Tensor:
        """``KL(N(μ_c(x), σ_c(x)) || N(m_c, I))`` of every class, ``(B, K)``."""
        mean, logvar = (base[:, None] + self.classes.weight.T).chunk(2, dim=2)
        return 0.5 * ((mean - self.class_means).square() + logvar.exp() - 1 - logvar).sum(dim=2)

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        log_a, base = self.heads(x)
        a = log_a.exp()
        mean, logvar = (base + self.classes(a)).chunk(2, dim=1)
        z = sample_gaussian(mean, logvar)
        bce = F.binary_cross_entropy_with_logits(self.dec.logits(z), x, reduction="none")
        reconstruction = bce.flatten(1).sum(dim=1).mean()
        kl = (a * self.class_kl(base)).sum(dim=1).mean()
        negative_entropy = (a * log_a).sum(dim=1).mean()
        loss = reconstruction + self.kl_weight * kl + self.entropy_weight * negative_entropy
        losses = {"reconstruction": reconstruction, "kl": kl, "negative_entropy": negative_entropy}
        if self.balance_weight:
            losses["balance"] = torch.special.entr(a.mean(dim=0)).sum().neg()
            loss = loss + self.balance_weight * losses["balance"]
        if self.smooth_weight:
            # Self-augmented training (Hu et al. 2017, arXiv 1702.08720): the image's own classes are the target.
            log_deformed, _ = self.heads(deform(x))
            losses["smoothness"] = F.kl_div(log_deformed, a.detach(), reduction="batchmean")
            loss = loss + self.smooth_weight * losses["smoothness"]
        return {"loss": loss, **losses}

    def sample_classes(self, classes: Tensor, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(len(classes), self.latent_dim, generator=generator)
        return self.class_means[classes] + noise.to(self.class_means)

    def class_centroids(self) -> Tensor:
        return self.class_means

    def sample_prior(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        return self.sample_classes(torch.randint(self.num_classes, (num,), generator=generator), generator)


class InfoCatVAE(CatVAE):
    """CatVAE whose encoder is also trained to find the class of images decoded from that class's prior.

    That cross-entropy bounds the mutual information of class and image from below; it needs no further network.
    The released code hands probabilities to a function that takes a softmax itself; here it is taken once.
    """

    title = "InfoCatVAE (arXiv 1806.08240): CatVAE whose encoder finds the class of what it generates"

    def __init__(
        self,
        *args,
        info_weight: Annotated[float, Flag("weight of that cross-entropy per image", non_negative_float)] = INFO_WEIGHT,
        **options,
    ):
        super().__init__(*args, **options)
        self.info_weight = info_weight

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        losses = super().losses(x)
        classes = torch.arange(self.num_classes, device=x.device).repeat(GENERATED)
        z = self.class_means[classes] + torch.randn(len(classes), self.latent_dim, device=x.device, dtype=x.dtype)
        log_a, _ = self.heads(self.decode(z))
        information = F.nll_loss(log_a, classes)
        return losses | {"loss": losses["loss"] + self.info_weight * information, "information": information}

"""Presets of train.py: the flags of a published experiment, or of one of ours that is documented in docs/models.md.

A preset only changes defaults: every flag that is typed as well overrides it.
"""

from typing import NamedTuple


class Preset(NamedTuple):
    """A line for ``--help``, and what argparse would have stored had the flags been typed, by destination."""

    title: str
    flags: dict[str, object]


CELEBA = {"dataset": "celeba", "crop": 140}  # of both WAE codes and of RAE
# arXiv 1711.01558, section 4 and the released code. The cost is 0.05 times the squared error; on images in [-1, 1],
# which the code uses for CelebA, that is 0.2 times the one on images in [0, 1]. Rates, their schedule, epochs and
# σ_z² = 2 are the text's (appendix); the code's last configuration has σ_z = 1, 50 epochs, one rate for both models.
WAE = {"arch": "wae", "noise": "add_noise", "e_pretrain": 200, "batch_size": 100, "lr_schedule": "wae"}
MMD_MNIST = WAE | {"model": "wae-mmd", "dataset": "mnist", "latent_dim": 8, "epochs": 100}
MMD_MNIST |= {"mmd_weight": 10.0, "lr": 1e-3}
WAE_CELEBA = WAE | {"latent_dim": 64, "pz_scale": 2**0.5, "cost_scale": 0.2, "epochs": 55}
MMD_CELEBA = WAE_CELEBA | {"model": "wae-mmd", "mmd_weight": 100.0, "lr": 1e-3}
GAN_CELEBA = WAE_CELEBA | {"model": "wae-gan", "gan_weight": 1.0, "prior_offset": True, "offset_factor": "fixed"}
GAN_CELEBA |= {"adversary_lr": 1e-3, "lr": 3e-4}
# telin0411/WAE-PyTorch, README: λ = 10, σ_z = 1, 55 epochs, a rate of 3e-4, three times that for the discriminator. The
# cost is the mean over the 64 · 64 · 3 values of images in [0, 1]; noise, batch and network are the code's defaults.
PYTORCH = {"arch": "wae-pytorch", "latent_dim": 64, "noise": "gaussian", "cost_scale": 1 / 12288, "pz_scale": 1.0}
PYTORCH |= {"batch_size": 100, "lr": 3e-4, "epochs": 55}
MMD_PYTORCH = PYTORCH | {"model": "wae-mmd", "mmd_weight": 10.0, "e_pretrain": 2026}  # an epoch of all 202,599 images
GAN_PYTORCH = PYTORCH | {"model": "wae-gan", "gan_weight": 10.0, "adversary_lr": 9e-4}
# arXiv 1903.12436, released configurations 3 to 5 and 20. 50,000 images of MNIST are trained on.
RAE = {"model": "rae", "arch": "wae", "batch_size": 100, "lr_schedule": "plateau"}
RAE_MNIST = RAE | {"dataset": "mnist", "train_size": 50_000, "latent_dim": 16, "lr": 5e-4, "epochs": 100}
RAE_L2 = RAE_MNIST | {"penalty": "l2", "l2_layers": "convolutions", "penalty_weight": 1e-7, "embedding_weight": 1e-4}
RAE_GP = RAE_MNIST | {"penalty": "gp", "penalty_weight": 5e-8, "embedding_weight": 1e-4}
RAE_SN = RAE_MNIST | {"penalty": "sn", "sn_layers": "released", "embedding_weight": 9e-3}
RAE_CELEBA = RAE | {"latent_dim": 64, "lr": 1e-3, "epochs": 70, "penalty": "l2", "l2_layers": "layers"}
RAE_CELEBA |= {"penalty_weight": 1e-7, "embedding_weight": 1e-4}
# arXiv 1910.04329, section 5.1 and the released code. There the rate is in bits per pixel:
# λ = 0.1 is 0.1 · 64² · ln 2 here. 197 epochs are 500,000 steps.
GDN_CELEBA = {"dataset": "celeba", "crop": 178, "arch": "gdn", "latent_dim": 256}
GDN_CELEBA |= {"batch_size": 64, "lr": 1e-4, "epochs": 197}
RADOGAGA = {"model": "radogaga", "h": "log", "lambda1": 283.9, "lambda2": 283.9, "noise_width": 1.0}
BETA_VAE = {"model": "beta-vae", "lambda1": 1e5, "lambda2": 1e5}
# train.sh: --loss2 ssim --lambda1 0.2 for RaDOGAGA, --loss1 ssim --loss2 ssim and 1e4 for β-VAE.
RADOGAGA_SSIM = RADOGAGA | {"lambda1": 567.8, "distortion2": "ssim"}
BETA_VAE_SSIM = BETA_VAE | {"lambda1": 1e4, "lambda2": 1e4, "distortion": "ssim", "distortion2": "ssim"}
# arXiv 1806.08240 and its released code, whose weight of 100 stands beside a sum over the 128 images of a batch.
INFOCAT = {"model": "infocat-vae", "dataset": "mnist", "arch": "mlp", "info_weight": 100 / 128}
INFOCAT |= {"batch_size": 128, "lr": 1e-3, "epochs": 5000}
# Ours, not the paper's: how it was found, and what else was tried, is in docs/models.md.
CLUSTERS = {"model": "infocat-vae", "prior_mean": 3.0, "kl_weight": 2.0, "entropy_weight": -96.0, "info_weight": 20.0}
CLUSTERS |= {"balance_weight": 512.0, "smooth_weight": 512.0}
CLUSTERS |= {"dataset": "mnist", "batch_size": 250, "lr": 2e-3, "precision": "bf16", "epochs": 12}
# arXiv 2305.01090 and its released code (mdgrahamwisc/IRMAE_WD), of the Kuramoto–Sivashinsky data: 200 epochs there,
# 1,000 "for a sharper drop".
IRMAE_WD = {"model": "irmae", "linear_layers": 4, "weight_decay": 1e-6, "batch_size": 128, "lr": 1e-3, "epochs": 200}

PRESETS = {
    "wae-mmd-mnist": Preset("WAE-MMD on MNIST as published: n = 8, λ = 10", MMD_MNIST),
    "infocat-mnist": Preset("InfoCatVAE on MNIST as published: K = 10, λ = 2, 5,000 epochs", INFOCAT),
    "infocat-mnist-clusters": Preset("InfoCatVAE that finds the digits of MNIST without labels", CLUSTERS),
    "wae-mmd-celeba": Preset("WAE-MMD on CelebA as published: n = 64, λ = 100", CELEBA | MMD_CELEBA),
    "wae-gan-celeba": Preset("WAE-GAN on CelebA as published: n = 64, λ = 1", CELEBA | GAN_CELEBA),
    "wae-mmd-celeba-pytorch": Preset("WAE-MMD on CelebA as in telin0411/WAE-PyTorch: λ = 10", CELEBA | MMD_PYTORCH),
    "wae-gan-celeba-pytorch": Preset("WAE-GAN on CelebA as in telin0411/WAE-PyTorch: λ = 10", CELEBA | GAN_PYTORCH),
    "rae-l2-mnist": Preset("RAE with decayed weights on MNIST as released: n = 16", RAE_L2),
    "rae-gp-mnist": Preset("RAE with the gradient penalty on MNIST as released: n = 16", RAE_GP),
    "rae-sn-mnist": Preset("RAE with spectral norms on MNIST as released: n = 16", RAE_SN),
    "rae-l2-celeba": Preset("RAE with decayed weights on CelebA as released: n = 64", CELEBA | RAE_CELEBA),
    "radogaga-celeba": Preset("RaDOGAGA on CelebA as published: n = 256, h(D) = log D", GDN_CELEBA | RADOGAGA),
    "irmae-wd": Preset("IRMAE with weight decay as published: l = 4, λ = 1e-6", IRMAE_WD),
    "beta-vae-celeba": Preset("RaDOGAGA's baseline on CelebA as published: λ1 = λ2 = 1e5", GDN_CELEBA | BETA_VAE),
    "radogaga-celeba-ssim": Preset("RaDOGAGA as published under 1 − SSIM: D(x̂, x̆)", GDN_CELEBA | RADOGAGA_SSIM),
    "beta-vae-celeba-ssim": Preset("RaDOGAGA's baseline, both D = 1 − SSIM: λ1 = λ2 = 1e4", GDN_CELEBA | BETA_VAE_SSIM),
}

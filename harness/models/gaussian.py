"""Diagonal Gaussians and the divergences the objectives are made of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """A diagonal Gaussian: ``mean`` and ``log_variance`` of equal shape."""

    mean: Tensor
    log_variance: Tensor

    @property
    def variance(self) -> Tensor:
        """Variance, same shape as the mean."""
        return self.log_variance.exp()

    def sample(self, generator: torch.Generator | None) -> Tensor:
        """A reparametrised sample; ``generator`` None gives the mean."""
        if generator is None:
            return self.mean
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + (0.5 * self.log_variance).exp() * noise


def kl_to_centred(posterior: Gaussian, variance: Tensor) -> Tensor:
    """KL( N(m, s²) ‖ N(0, diag β) ) a dimension, same shape as the mean.

    Parameters
    ----------
    posterior
        The N(m, s²).
    variance : broadcastable to the mean
        β.
    """
    ratio = (posterior.variance + posterior.mean.square()) / variance
    return 0.5 * (ratio - 1.0 - posterior.log_variance + variance.log())


def negative_log_likelihood(x: Tensor, mean: Tensor, variance: float) -> Tensor:
    """−log N(x; mean, variance·I), summed over all but the first dimension, (n,)."""
    constant = 0.5 * torch.log(torch.tensor(2.0 * torch.pi * variance, dtype=x.dtype, device=x.device))
    each = 0.5 * (x - mean).square() / variance + constant
    return each.flatten(1).sum(1)


def mmd(x: Tensor, y: Tensor) -> Tensor:
    """Squared maximum mean discrepancy (biased), Gaussian kernels at ¼, ½, 1, 2, 4 × the median squared distance.

    Parameters
    ----------
    x : (n, d)
    y : (m, d)
    """
    both = torch.cat([x, y])
    distance = torch.cdist(both, both).square()
    median = distance.detach().median().clamp_min(1e-8)
    kernel = torch.stack([torch.exp(-distance / (scale * median)) for scale in (0.25, 0.5, 1.0, 2.0, 4.0)]).mean(0)
    n = len(x)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2.0 * kernel[:n, n:].mean()

"""Collapsed latents are named."""

import torch

from harness.models import Latents
from harness.training.collapse import collapse_warnings, inactive

ALIVE = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))


def test_a_healthy_model_is_not_warned_of():
    assert (
        collapse_warnings(Latents(ALIVE, ALIVE), {"validation/kl_responsive": 3.0, "validation/kl_invariant": 2.0})
        == []
    )
    assert collapse_warnings(Latents(ALIVE, ALIVE), {}) == []  # a model without the two blocks has no such terms


def test_a_block_without_active_latents_and_single_latents_are_named():
    partly = ALIVE * torch.tensor([1.0, 0.05, 1.0])
    whole, part = collapse_warnings(Latents(ALIVE * 0.01, partly), {})
    assert whole == "the responsive block collapsed: no latent is active on validation cells"
    assert part.startswith("1 of 3 latents of the invariant block collapsed: 2 are not active")
    assert inactive(partly) == [1]
    assert inactive(partly[:1]) == [0, 1, 2]


def test_a_posterior_at_its_prior_is_named():
    found = collapse_warnings(Latents(ALIVE, ALIVE), {"validation/kl_responsive": 0.01, "validation/kl_invariant": 2.0})
    assert len(found) == 1
    assert "the responsive block is close to its prior (0.01 nats a cell)" in found[0]


def test_an_empty_block_has_no_idle_latents(recwarn):
    assert inactive(ALIVE[:, :0]) == []
    assert not recwarn.list

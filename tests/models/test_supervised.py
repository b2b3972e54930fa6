"""The supervised oracle: its loss in closed form, its units, and that it learns what a frame shows."""

import pytest
import torch

from harness.model_spec import SupervisedSpec
from harness.models import build_model


def built(shape=(6,), columns=(3, 2)):
    torch.manual_seed(0)
    spec = SupervisedSpec(hidden=8).model_dump()
    return build_model(spec, shape=shape, perturbations=3, targets=None, columns=columns)


def frames_and_truth(n=40, shape=(6,)):
    random = torch.Generator().manual_seed(1)
    return torch.randn(n, 2, *shape, generator=random), torch.randn(n, 2, 5, generator=random) * 3.0 + 7.0


@pytest.mark.parametrize("shape", [(6,), (3, 12, 12)])
def test_every_frame_is_an_example_and_errors_count_in_sds(shape):
    model = built(shape=shape)
    frames, truth = frames_and_truth(shape=shape)
    model.transform.fit(frames.flatten(0, 1), torch.Generator().manual_seed(0))
    model.fit_targets(truth.flatten(0, 1))
    loss = model.loss(frames, torch.zeros(40, 3), 1.0, None, truth=truth)
    errors = []
    for time in (0, 1):  # what it says of the last frame of each shorter trajectory
        said = torch.cat(model.encode(frames[:, : time + 1], torch.zeros(40, 3)), dim=1)
        errors.append((said - truth[:, time]) / truth.flatten(0, 1).std(0))
    torch.testing.assert_close(loss.total, torch.stack(errors).square().mean())
    assert loss.terms["bound"] == loss.total.detach()
    loss.total.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())  # none is left out


def test_a_constant_answer_has_an_error_of_one():
    model = built()
    frames, truth = frames_and_truth(n=4000)
    model.fit_targets(truth.flatten(0, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert model.loss(frames, torch.zeros(4000, 3), 1.0, None, truth=truth).total.item() == pytest.approx(1.0, rel=1e-3)
    torch.testing.assert_close(torch.cat(model.encode(frames, torch.zeros(4000, 3)), 1)[0], truth.flatten(0, 1).mean(0))


def test_blocks_have_the_columns_of_the_truth_and_a_constant_column_does_no_harm():
    model = built()
    frames, truth = frames_and_truth()
    truth[..., 4] = 2.0
    model.fit_targets(truth.flatten(0, 1))
    latents = model.encode(frames, torch.zeros(40, 3))
    assert (latents.responsive.shape, latents.invariant.shape) == ((40, 3), (40, 2))
    assert torch.isfinite(model.loss(frames, torch.zeros(40, 3), 1.0, None, truth=truth).total)


def test_it_learns_a_linear_map():
    model = built()
    random = torch.Generator().manual_seed(2)
    frames = torch.randn(500, 1, 6, generator=random)
    truth = frames @ torch.randn(6, 5, generator=random)
    model.fit_targets(truth.flatten(0, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        loss = model.loss(frames, torch.zeros(500, 3), 1.0, None, truth=truth)
        loss.total.backward()
        optimizer.step()
    assert loss.total.item() < 0.01


def test_without_truth_there_is_nothing_to_learn():
    with pytest.raises(ValueError, match="learns from true latents, which these data do not have"):
        built(columns=None)
    with pytest.raises(ValueError, match="was given none"):
        built().loss(torch.zeros(2, 2, 6), torch.zeros(2, 3), 1.0, None)


def test_it_has_no_decoder():
    model = built()
    assert not any(name.startswith("decoder") for name in model.state_dict())
    with pytest.raises(NotImplementedError, match="predicts no cells"):
        model.predict(torch.zeros(2, 6), torch.zeros(2, 3), 1, torch.Generator())


def test_its_spec_has_no_field_that_it_does_not_read():
    assert set(SupervisedSpec.model_fields) == {
        "kind",
        "network",
        "hidden",
        "layers",
        "input_pca",
        "input_whiten",
        "input_standardise",
    }

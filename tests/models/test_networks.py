"""Input transforms and networks against closed forms."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from harness.models.networks import ConvDecoder, ConvEncoder, InputTransform, principal_components


def _generator():
    return torch.Generator().manual_seed(0)


def test_pca_whitening_equals_scikit_learn():
    x = torch.randn(300, 8, generator=_generator()) @ torch.randn(8, 20, generator=_generator())
    transform = InputTransform((20,), 5)
    transform.fit(x, _generator())
    ours = transform.prepare(x)
    theirs = PCA(5, whiten=True, svd_solver="full").fit_transform(x.numpy())
    np.testing.assert_allclose(np.abs(ours.numpy()), np.abs(theirs), atol=2e-3)


def test_randomised_components_equal_the_exact_ones():
    x = torch.randn(1500, 12, generator=_generator()) @ torch.randn(12, 1200, generator=_generator())
    x = x - x.mean(0)
    exact = torch.linalg.svdvals(x)[:5]
    singular, basis = principal_components(x, 5, _generator())
    torch.testing.assert_close(singular, exact, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(basis.T @ basis, torch.eye(5), atol=1e-4, rtol=0)


def test_full_rank_pca_restores_the_frame():
    x = torch.randn(100, 3, 4, 4, generator=_generator())
    transform = InputTransform((3, 4, 4), 48)
    transform.fit(x, _generator())
    torch.testing.assert_close(transform.restore(transform.prepare(x)), x, atol=1e-3, rtol=0)


def test_without_whitening_components_keep_their_proportions():
    x = torch.randn(300, 20, generator=_generator()) * torch.arange(1, 21)
    transform = InputTransform((20,), 5, whiten=False)
    transform.fit(x, _generator())
    ours = transform.prepare(x).std(0)
    theirs = torch.from_numpy(PCA(5, svd_solver="full").fit_transform(x.numpy())).std(0)
    torch.testing.assert_close(ours, theirs / theirs[0], atol=1e-3, rtol=1e-3)


def test_standardising_leaves_constant_features_alone():
    x = torch.randn(50, 3, generator=_generator())
    x[:, 1] = 4.0
    transform = InputTransform((3,), None)
    transform.fit(x, _generator())
    seen = transform.inputs(transform.prepare(x))
    assert (seen[:, 1] == 0).all()
    torch.testing.assert_close(seen[:, 0].std(), torch.tensor(1.0))
    torch.testing.assert_close(transform.restore(seen), x)


def test_byte_images_are_scaled_to_one():
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=_generator())
    transform = InputTransform((3, 8, 8), None)
    transform.fit(images.float() / 255, _generator())
    restored = transform.restore(transform.inputs(transform.prepare(images)))
    torch.testing.assert_close(restored, images.float() / 255)


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (33, 20), (64, 64)])
def test_convolutions_mirror_each_other(size):
    encoder, decoder = ConvEncoder((3, *size), 4, 7), ConvDecoder(7, 4, (3, *size))
    code = encoder(torch.zeros(2, 3, *size))
    assert code.shape == (2, 7)
    assert decoder(code).shape == (2, 3, *size)

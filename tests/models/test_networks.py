"""Input transforms and networks against closed forms."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch.nn.functional import grid_sample

from harness.models.conv import ConvDecoder, ConvEncoder, patch_side
from harness.models.glimpse import GlimpseEncoder, cut_out
from harness.models.networks import InputTransform, principal_components
from harness.models.resnet import ResNetDecoder, ResNetEncoder


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


@pytest.mark.parametrize(
    "networks",
    [(ConvEncoder, ConvDecoder), (GlimpseEncoder, ConvDecoder), (ResNetEncoder, ResNetDecoder)],
)
@pytest.mark.parametrize("size", [(8, 8), (32, 32), (33, 20), (64, 64), (135, 128)])
def test_image_networks_mirror_each_other(networks, size):
    encoder, decoder = networks[0]((3, *size), 4, 7), networks[1](7, 4, (3, *size))
    code = encoder(torch.randn(2, 3, *size))
    assert code.shape == (2, 7)
    assert decoder(code).shape == (2, 3, *size)


@pytest.mark.parametrize(("side", "patch"), [(8, 1), (31, 1), (32, 2), (64, 4), (224, 8), (256, 16)])
def test_patches_leave_sixteen_along_a_side(side, patch):
    assert patch_side((side, side + 5)) == patch


@pytest.mark.parametrize("encoder", [ConvEncoder, GlimpseEncoder, ResNetEncoder])
def test_every_pixel_reaches_the_code(encoder):
    images = torch.randn(1, 3, 33, 40, requires_grad=True)
    encoder((3, 33, 40), 8, 5)(images).square().sum().backward()
    assert (images.grad != 0).all()


@pytest.mark.parametrize("size", [(16, 16), (21, 34)])
def test_a_window_is_cut_out_as_torch_samples_it(size):
    images, window = torch.randn(40, 3, *size, generator=_generator()), (8, 11)
    extent = torch.tensor(size)
    centre = (torch.rand(40, 2, generator=_generator()) * 1.4 - 0.2) * extent  # some beyond the border
    steps = [(torch.arange(length) - (length - 1) / 2) for length in window]
    rows, columns = torch.meshgrid(*steps, indexing="ij")
    places = centre[:, None, None] + torch.stack([rows, columns], dim=-1)
    normalised = ((2 * places + 1) / extent - 1).flip(-1)  # torch says x first, with -1 and 1 at the outer edges
    sampled = grid_sample(images, normalised, padding_mode="border", align_corners=False)
    torch.testing.assert_close(cut_out(images, centre, window), sampled, atol=1e-5, rtol=1e-5)


def test_a_window_between_pixels_holds_pixels():
    images = torch.randn(2, 3, 12, 12, generator=_generator())
    centre = torch.tensor([[5.5, 4.5], [6.5, 3.5]])
    cut = cut_out(images, centre, (4, 6))
    assert torch.equal(cut[0], images[0, :, 4:8, 2:8])
    assert torch.equal(cut[1], images[1, :, 5:9, 1:7])


def test_the_window_goes_where_the_coarse_features_point():
    encoder = GlimpseEncoder((3, 64, 40), 8, 5)
    torch.nn.init.zeros_(encoder.logits.weight)
    encoder.logits.weight.data[0, 0, 1, 1] = 50.0
    features = torch.zeros(2, encoder.logits.in_channels, 16, 10)  # cells of 4 x 4 pixels
    features[0, 0, 3, 7] = features[1, 0, 15, 0] = 1.0
    torch.testing.assert_close(encoder._centre(features), torch.tensor([[13.5, 29.5], [61.5, 1.5]]))
    torch.nn.init.zeros_(encoder.logits.weight)
    torch.testing.assert_close(encoder._centre(features), torch.tensor([[31.5, 19.5]] * 2))


def test_the_window_s_place_keeps_its_precision_under_autocast():
    encoder = GlimpseEncoder((3, 1280, 40), 8, 5)
    torch.nn.init.zeros_(encoder.logits.weight)
    encoder.logits.weight.data[0, 0, 1, 1] = 50.0
    features = torch.zeros(1, encoder.logits.in_channels, 320, 10)
    features[0, 0, 301, 7] = 1.0
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder._centre(features), torch.tensor([[1205.5, 29.5]]))  # bfloat16 says 1208


def test_the_residual_encoder_is_as_deep_as_the_original():
    layers = [part for part in ResNetEncoder((3, 64, 64), 8, 5).modules() if isinstance(part, torch.nn.Conv2d)]
    assert len([part for part in layers if part.kernel_size != (1, 1)]) == 17  # and one dense layer make 18


def test_the_residual_encoder_tells_left_from_right():
    image = torch.zeros(2, 3, 64, 64)
    image[0, :, 28:36, 8:16] = image[1, :, 28:36, 48:56] = 1.0
    codes = ResNetEncoder((3, 64, 64), 8, 5)(image)
    assert not torch.allclose(codes[0], codes[1], rtol=0.01)

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from nuxel.nn.blocks import ACTIVATIONS, ConvStyle, conv_norm_act, initialise, up_conv_norm_act


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_conv_norm_act_keeps_the_size_and_counts() -> None:
    block = conv_norm_act(5, 7, kernel=3)
    assert block(torch.randn(2, 5, 9, 11)).shape == (2, 7, 9, 11)
    assert parameters(block) == 5 * 7 * 9 + 2 * 7
    assert parameters(conv_norm_act(5, 7, kernel=1)) == 5 * 7 + 2 * 7


EQUATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_normalisation_then_activation_follow_the_convolution(activation: str) -> None:
    """In training, a channel is normalised by its own mean and spread over the batch."""
    block = conv_norm_act(2, 3, style=ConvStyle(activation))
    nn.init.uniform_(block[1].weight)
    nn.init.normal_(block[1].bias)
    x = torch.randn(2, 2, 5, 6)
    convolved = functional.conv2d(x, block[0].weight, padding=1).detach().numpy()
    centred = convolved - convolved.mean((0, 2, 3), keepdims=True)
    normal = centred / np.sqrt((centred**2).mean((0, 2, 3), keepdims=True) + 1e-5)
    scale, shift = (p.detach().numpy().reshape(1, -1, 1, 1) for p in (block[1].weight, block[1].bias))
    expected = EQUATIONS[activation](normal * scale + shift)
    assert block(x).detach().numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("padding", "mode"), [("zero", "constant"), ("mirror", "symmetric")])
@pytest.mark.parametrize("shape", [(4, 5), (1, 3), (1, 1)])
def test_what_lies_beyond_the_edge(padding: str, mode: str, shape: tuple[int, int]) -> None:
    conv = ConvStyle(padding=padding).conv(2, 3, 3)
    x = torch.randn(1, 2, *shape)
    padded = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode=mode))
    assert torch.allclose(conv(x), functional.conv2d(padded, conv.weight), atol=1e-6)


def test_up_conv_writes_two_by_two_pixels_from_one() -> None:
    block = up_conv_norm_act(3, 4)
    assert parameters(block) == 3 * 4 * 4 + 2 * 4
    x = torch.randn(2, 3, 4, 5)
    assert block(x).shape == (2, 4, 8, 10)
    weight, found = block[0].weight, block[0](x)
    for y, x_, i, j in [(0, 0, 0, 0), (3, 4, 1, 0), (2, 1, 0, 1), (1, 3, 1, 1)]:
        expected = weight[:, :, i, j].T @ x[1, :, y, x_]
        assert torch.allclose(found[1, :, 2 * y + i, 2 * x_ + j], expected, atol=1e-6)


class TestInitialise:
    def layers(self) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(40, 60, 3), nn.BatchNorm2d(60), nn.Conv2d(60, 100, 1))

    @pytest.mark.parametrize(
        ("scheme", "variance"),
        [
            ("xavier", lambda fan_in, fan_out: 2 / (fan_in + fan_out)),
            ("he", lambda fan_in, _: 2 / fan_in),
            ("lecun", lambda fan_in, _: 1 / fan_in),
        ],
    )
    def test_the_spread_of_the_weights_is_the_schemes(self, scheme: str, variance) -> None:
        torch.manual_seed(0)
        layers = self.layers()
        initialise(layers, scheme)
        for conv, fans in ((layers[0], (40 * 9, 60 * 9)), (layers[2], (60, 100))):
            assert conv.weight.var().item() == pytest.approx(variance(*fans), rel=0.06)
            assert not conv.bias.any()
        assert (layers[1].weight == 1).all()

    def test_xavier_is_uniform(self) -> None:
        layers = self.layers()
        initialise(layers, "xavier")
        limit = math.sqrt(6 / (60 + 100))
        assert 0.98 * limit < layers[2].weight.abs().max() <= limit

    def test_pytorchs_own_stays(self) -> None:
        layers = self.layers()
        before = [p.clone() for p in layers.parameters()]
        initialise(layers, "pytorch")
        assert all(torch.equal(*pair) for pair in zip(before, layers.parameters(), strict=True))

    def test_transposed_convolutions_too(self) -> None:
        block = up_conv_norm_act(4, 4)
        before = block[0].weight.clone()
        initialise(block, "lecun")
        assert not torch.equal(before, block[0].weight)

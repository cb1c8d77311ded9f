import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nuxel.nn.blocks import ConvStyle
from nuxel.nn.inception_se import InceptionModule, InceptionSEUpBlock, SqueezeExcitation


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def normalised(conv: nn.Sequential, x: Tensor) -> Tensor:
    """One convolution, batch normalisation and ELU written out."""
    weight, norm = conv[0].weight, conv[1]
    x = functional.conv2d(x, weight, padding=weight.shape[2] // 2)
    x = functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return functional.elu(x)


class TestInceptionModule:
    def test_shape_and_count(self) -> None:
        module = InceptionModule(6, 8)
        assert module(torch.randn(2, 6, 5, 7)).shape == (2, 8, 5, 7)
        # four 1 x 1 convolutions of the inputs, three 3 x 3 of a branch's two channels, seven normalisations
        assert parameters(module) == 4 * 6 * 2 + 3 * 9 * 2 * 2 + 7 * 2 * 2

    def test_is_four_scales_side_by_side(self) -> None:
        module = InceptionModule(3, 8, ConvStyle("elu")).eval()
        x = torch.randn(1, 3, 5, 6)
        one, two, three, pooled = module.branches
        # the mean over those of the 3 x 3 pixels that there are
        box = torch.ones(3, 1, 3, 3)
        there = functional.conv2d(torch.ones_like(x), box, padding=1, groups=3)
        mean = functional.conv2d(x, box, padding=1, groups=3) / there
        expected = [
            normalised(one, x),
            normalised(two[1], normalised(two[0], x)),
            normalised(three[2], normalised(three[1], normalised(three[0], x))),
            normalised(pooled[1], mean),
        ]
        assert torch.allclose(module(x), torch.cat(expected, 1), atol=1e-5)

    def test_outputs_that_four_branches_cannot_share(self) -> None:
        with pytest.raises(ValueError, match="cannot have 6 outputs"):
            InceptionModule(4, 6)


class TestSqueezeExcitation:
    def test_shape_and_count(self) -> None:
        block = SqueezeExcitation(8, reduction=4)
        assert block(torch.randn(2, 8, 3, 5)).shape == (2, 8, 3, 5)
        assert parameters(block) == (8 * 2 + 2) + (2 * 8 + 8)

    def test_hidden_layer_has_at_least_one_channel(self) -> None:
        assert parameters(SqueezeExcitation(3, reduction=16)) == (3 + 1) + (3 + 3)

    def test_is_its_equation(self) -> None:
        block = SqueezeExcitation(6, reduction=3)
        x = torch.randn(2, 6, 4, 5)
        (w1, b1), (w2, b2) = ((c.weight[:, :, 0, 0], c.bias) for c in (block.excite[0], block.excite[2]))
        hidden = (x.mean((2, 3)) @ w1.T + b1).clamp(min=0)
        scale = 1 / (1 + torch.exp(-(hidden @ w2.T + b2)))
        assert torch.allclose(block(x), x * scale[:, :, None, None], atol=1e-6)

    def test_every_pixel_depends_on_every_other(self) -> None:
        torch.manual_seed(0)  # of a few draws in a hundred all hidden channels are off
        block = SqueezeExcitation(4, reduction=1).double()
        x = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(block(x)[0, :, 0, 0].sum(), x)
        assert (gradient[0].abs().sum(0) > 0).all()


class TestUpBlock:
    @pytest.mark.parametrize("skip", [0, 5])
    def test_shape_and_count(self, skip: int) -> None:
        block = InceptionSEUpBlock(6, skip, 8, reduction=4)
        joined = torch.randn(2, skip, 6, 10) if skip else None
        assert block(torch.randn(2, 6, 3, 5), joined).shape == (2, 8, 6, 10)
        up = 6 * 8 * 4 + 2 * 8
        assert parameters(block) == up + parameters(InceptionModule(8 + skip, 8)) + parameters(
            SqueezeExcitation(8, 4)
        )

    def test_enlarges_then_joins_then_convolves_then_weighs(self) -> None:
        block = InceptionSEUpBlock(3, 2, 4, reduction=2, style=ConvStyle("elu")).eval()
        x, skip = torch.randn(1, 3, 2, 3), torch.randn(1, 2, 4, 6)
        norm = block.up[1]
        enlarged = functional.conv_transpose2d(x, block.up[0].weight, stride=2)
        enlarged = functional.elu(
            functional.batch_norm(enlarged, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        features = block.inception(torch.cat([enlarged, skip], 1))
        expected = features * block.weigh.excite(features.mean((2, 3), keepdim=True))
        assert torch.allclose(block(x, skip), expected, atol=1e-6)

import pytest
import torch
from torch import nn

from nuxel.nn.blocks import ConvStyle
from nuxel.nn.multihead_unet import ConcatUpBlock, SubpixelHead, UNetDecoder, UpBlock


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_subpixel_head_writes_each_pixel_from_its_own_weights() -> None:
    """Output (m, 2y + i, 2x + j) is channel 4m + 2i + j of the 1 x 1 convolution at (y, x)."""
    head = SubpixelHead(3, 2)
    features = torch.randn(1, 3, 4, 5)
    maps = head(features)
    assert maps.shape == (1, 2, 8, 10)
    assert parameters(head) == 8 * 3 + 8
    weights, bias = head.conv.weight[:, :, 0, 0], head.conv.bias
    for m, y, x, i, j in [(0, 0, 0, 0, 0), (0, 3, 4, 1, 0), (1, 2, 1, 0, 1), (1, 1, 3, 1, 1)]:
        channel = 4 * m + 2 * i + j
        expected = weights[channel] @ features[0, :, y, x] + bias[channel]
        assert maps[0, m, 2 * y + i, 2 * x + j].item() == pytest.approx(expected.item(), abs=1e-5)


def test_up_block_adds_enlarged_features_and_the_skip() -> None:
    """Each share is convolved first; the sum is what normalisation, activation and refinement see."""
    block = UpBlock(2, 3, 4)
    seen = []
    block.join.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    coarse, skip = torch.randn(1, 2, 3, 5), torch.randn(1, 3, 6, 10)
    assert block(coarse, skip).shape == (1, 4, 6, 10)
    share = nn.functional.conv2d(coarse, block.coarse.weight, padding=1)
    expected = share.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = expected + nn.functional.conv2d(skip, block.skip.weight, padding=1)
    assert torch.allclose(seen[0], expected, atol=1e-5)


def test_each_further_convolution_of_an_up_block_refines_what_the_one_before_gave() -> None:
    block = UpBlock(2, 3, 4, convolutions=2).eval()
    coarse, skip = torch.randn(1, 2, 3, 5), torch.randn(1, 3, 6, 10)
    joined = []
    block.join.register_forward_hook(lambda _, __, sum_: joined.append(sum_))
    found = block(coarse, skip)
    expected = joined[0]
    layers = iter(block.refine)
    for conv, norm, act in zip(layers, layers, layers, strict=True):
        expected = act(norm(nn.functional.conv2d(expected, conv.weight, padding=1)))
    assert torch.allclose(found, expected, atol=1e-5)
    assert parameters(block) - parameters(UpBlock(2, 3, 4)) == 9 * 4 * 4 + 2 * 4


@pytest.mark.parametrize("skip", [0, 5])
def test_concatenating_block_counts(skip: int) -> None:
    block = ConcatUpBlock(6, skip, 4)
    joined = torch.randn(2, skip, 6, 10) if skip else None
    assert block(torch.randn(2, 6, 3, 5), joined).shape == (2, 4, 6, 10)
    assert parameters(block) == 6 * 4 * 4 + 9 * (4 + skip) * 4 + 9 * 4 * 4 + 3 * 2 * 4


def test_concatenating_block_is_its_equation() -> None:
    """Transposed convolution, the skip behind it, two convolutions; normalisation and activation after each."""
    block = ConcatUpBlock(2, 3, 4, ConvStyle("elu")).eval()
    x, skip = torch.randn(1, 2, 3, 5), torch.randn(1, 3, 6, 10)

    def finish(features: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
        scaled = (features - norm.running_mean.view(1, -1, 1, 1)) / torch.sqrt(
            norm.running_var.view(1, -1, 1, 1) + norm.eps
        )
        return nn.functional.elu(scaled * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1))

    enlarged = finish(nn.functional.conv_transpose2d(x, block.up[0].weight, stride=2), block.up[1])
    expected = torch.cat([enlarged, skip], 1)
    for conv, norm, _ in block.refine:
        expected = finish(nn.functional.conv2d(expected, conv.weight, padding=1), norm)
    assert torch.allclose(block(x, skip), expected, atol=1e-5)


def test_one_block_more_than_skips_doubles_the_size_once_more() -> None:
    decoder = UNetDecoder((4, 6), (8, 10), [ConcatUpBlock] * 2)
    maps = [torch.randn(1, 4, 16, 24), torch.randn(1, 6, 8, 12)]
    assert decoder(maps).shape == (1, 10, 32, 48)
    assert parameters(decoder) == parameters(ConcatUpBlock(6, 4, 8)) + parameters(ConcatUpBlock(8, 0, 10))


def test_up_block_with_its_normalisation_folded_gives_the_same() -> None:
    block = UpBlock(2, 3, 4)
    norm = block.join[0]
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(values, 0.5, 2)
    block.eval()
    coarse, skip = torch.randn(1, 2, 3, 5), torch.randn(1, 3, 6, 10)
    with torch.no_grad():
        expected = block(coarse, skip)
        block.fold_norm()
        found = block(coarse, skip)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in block.join)
    assert torch.allclose(found, expected, atol=1e-5)


def test_decoder_goes_from_coarse_to_stride_two() -> None:
    channels, widths = (4, 6, 8), (10, 12)
    decoder = UNetDecoder(channels, widths, [UpBlock] * 2)
    maps = [torch.randn(1, c, 16 // 2**k, 24 // 2**k) for k, c in enumerate(channels)]
    assert decoder(maps).shape == (1, 12, 16, 24)
    assert decoder.channels == 12

    def block(inputs: int, width: int) -> int:
        return 9 * inputs * width + 9 * width * width + 4 * width

    assert parameters(decoder) == block(8 + 6, 10) + block(10 + 4, 12)


@pytest.mark.parametrize("block", [UpBlock, ConcatUpBlock])
def test_every_level_matters(block: type[nn.Module]) -> None:
    decoder = UNetDecoder((2, 2, 2), (3, 3), [block] * 2).eval()
    maps = [torch.randn(1, 2, 16 // 2**k, 16 // 2**k, requires_grad=True) for k in range(3)]
    decoder(maps).sum().backward()
    assert all(level.grad is not None and level.grad.abs().sum() > 0 for level in maps)

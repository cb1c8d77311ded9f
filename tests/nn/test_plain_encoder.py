import torch
from torch import nn
from torch.nn import functional

from nuxel.nn.blocks import ConvStyle
from nuxel.nn.plain_encoder import PlainEncoder


def test_a_level_has_half_the_size_of_the_one_before() -> None:
    encoder = PlainEncoder((4, 6, 8))
    maps = encoder(torch.randn(2, 3, 16, 24))
    assert [tuple(m.shape) for m in maps] == [(2, 4, 16, 24), (2, 6, 8, 12), (2, 8, 4, 6)]
    assert (encoder.channels, encoder.strides) == ([4, 6, 8], [1, 2, 4])


def test_counts() -> None:
    def level(inputs: int, width: int) -> int:
        return 9 * inputs * width + 9 * width * width + 4 * width

    found = sum(p.numel() for p in PlainEncoder((4, 6, 8)).parameters())
    assert found == level(3, 4) + level(4, 6) + level(6, 8)


def test_normalisation_follows_every_convolution() -> None:
    kinds = [
        type(part) for part in PlainEncoder((2, 2)).modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d)
    ]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d] * 4


def test_is_two_convolutions_a_level_with_max_pooling_between() -> None:
    encoder = PlainEncoder((2, 3), ConvStyle("selu", "mirror")).eval()
    images = torch.randn(1, 3, 6, 8)
    with torch.no_grad():
        found = encoder(images)
        x = images
        for index, (level, mine) in enumerate(zip(encoder.levels, found, strict=True)):
            if index:
                x = functional.max_pool2d(x, 2)
            for conv, norm, _ in level:
                x = functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), conv.weight)
                x = functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
                x = functional.selu(x)
            assert torch.allclose(mine, x, atol=1e-6)

"""What every block of our own is made of: a convolution, batch normalisation, an activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from nuxel.errors import NuxelError

ACTIVATIONS: dict[str, type[nn.ReLU | nn.ELU | nn.SELU]] = {"relu": nn.ReLU, "elu": nn.ELU, "selu": nn.SELU}
PADDINGS: dict[str, Literal["zeros", "replicate"]] = {"zero": "zeros", "mirror": "replicate"}


@dataclass(frozen=True)
class ConvStyle:
    """What the convolutions of a network have in common.

    Parameters
    ----------
    activation
        ``"relu"``, ``"elu"`` or ``"selu"`` (multi-head U-Net paper, section 5.4).
    padding
        What lies beyond the edge of a map: ``"zero"``, or ``"mirror"``, the map reflected with its edge
        repeated (NumPy's and TensorFlow's "symmetric"). Kernels have at most 3 pixels a side, for which
        mirroring and repeating the edge are the same.
    """

    activation: str = "relu"
    padding: str = "zero"

    def activate(self) -> nn.Module:
        return ACTIVATIONS[self.activation](inplace=True)

    def conv(self, inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
        """A convolution that keeps the size; without bias, because batch normalisation follows."""
        mode = PADDINGS["zero" if kernel == 1 else self.padding]
        return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, padding_mode=mode)


DEFAULT_STYLE = ConvStyle()


def conv_norm_act(
    inputs: int, outputs: int, kernel: int = 3, style: ConvStyle = DEFAULT_STYLE
) -> nn.Sequential:
    """Convolution that keeps the size (``kernel`` is 1 or 3), batch normalisation, activation.

    Batch normalisation follows every convolution: section 5.2.1.
    """
    return nn.Sequential(style.conv(inputs, outputs, kernel), nn.BatchNorm2d(outputs), style.activate())


def up_conv_norm_act(inputs: int, outputs: int, style: ConvStyle = DEFAULT_STYLE) -> nn.Sequential:
    """Double the size: a 2 x 2 transposed convolution with stride 2, batch normalisation, activation.

    Output windows do not overlap: pixel ``(2y + i, 2x + j)`` is the matrix of tap ``(i, j)`` times input pixel
    ``(y, x)``.
    """
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 2, stride=2, bias=False),
        nn.BatchNorm2d(outputs),
        style.activate(),
    )


_Module = TypeVar("_Module", bound=nn.Module)


def answer_in_full(module: _Module) -> _Module:
    """Let a module, whose answer is tensors in lists or tuples, give it as :func:`in_full` does."""
    module.register_forward_hook(_answer_in_full)
    return module


def _answer_in_full(_: nn.Module, __: object, answer: Any) -> Any:
    if isinstance(answer, Tensor):
        return in_full(answer)
    return type(answer)(_answer_in_full(_, __, one) for one in answer)


def in_full(values: Tensor) -> Tensor:
    """What mixed precision made 16 bits wide as float32: a coordinate in bfloat16 is right to one in 256."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


_Conv = nn.Conv2d | nn.ConvTranspose2d


def _xavier(conv: _Conv) -> None:
    nn.init.xavier_uniform_(conv.weight)


def _he(conv: _Conv) -> None:
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")


def _lecun(conv: _Conv) -> None:
    nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")


INITIALISERS: dict[str, Callable[[_Conv], None]] = {
    "xavier": _xavier,
    "he": _he,
    "lecun": _lecun,
}


def initialise(module: nn.Module, scheme: str) -> None:
    """Draw the weights of all convolutions of ``module`` anew, in place, and let their biases be zero.

    Parameters
    ----------
    module
        Any module.
    scheme
        ``"pytorch"`` (what the layers drew when they were made; nothing is changed), ``"xavier"`` (uniform, variance
        ``2 / (fan in + fan out)``; Glorot and Bengio 2010), ``"he"`` (normal, ``2 / fan in``; for ReLU and ELU) or
        ``"lecun"`` (normal, ``1 / fan in``; for SELU, Klambauer et al. 2017). Fans are counted as PyTorch does.
    """
    if scheme == "pytorch":
        return
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            INITIALISERS[scheme](part)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def explained(error: ValueError, images: Tensor) -> Exception:
    """A sentence in place of what batch normalisation says of a batch that it cannot learn from; others as they are."""
    if "more than 1 value per channel" not in str(error):
        return error
    return NuxelError(
        f"batch normalisation cannot learn from one value a channel, which is what a batch of {len(images)} of "
        f"{images.shape[2]} x {images.shape[3]} pixels leaves of this network; train with a batch of at least 2"
    )

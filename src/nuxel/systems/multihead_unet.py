"""The multi-head U-Net family, of which the default system is a member: encoder, decoder, heads and losses to choose.

Source: "Nuclei detection based on Fully Convolutional Networks" (multi-head U-Net paper), sections 5.2 to 5.5.
Beyond the paper: where the pixel's nucleus has its centre, which is learned beside the masks and not exported; the
logarithm of the nucleus' diameter, from which prediction chooses its scale; and the decoder that adds instead of
concatenating.
No operation of the default looks further than its receptive field, so its answer cannot depend on how an image
is tiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nuxel.data.targets import TargetRule, multihead_targets
from nuxel.decode.clumps import ClumpRule
from nuxel.errors import UsageError
from nuxel.losses.segmentation import cross_entropy, masked_smooth_l1, soft_dice, weighted_cross_entropy
from nuxel.nn.blocks import ACTIVATIONS, INITIALISERS, PADDINGS, ConvStyle, explained, in_full, initialise
from nuxel.nn.encoder import IMAGENET_MEAN, IMAGENET_STD, Encoder, load_imagenet_weights
from nuxel.nn.inception_se import InceptionSEUpBlock
from nuxel.nn.multihead_unet import ConcatUpBlock, SubpixelHead, UNetDecoder, UpBlock
from nuxel.nn.plain_encoder import PlainEncoder
from nuxel.systems.system import check_weights

HEADS = {
    "nucleus": ("nucleus",),
    "shrunk": ("shrunk",),
    "touching": ("touching",),
    "offset": ("offset_y", "offset_x"),
    "log_diameter": ("log_diameter",),
}
"""The heads, and the maps of each."""

MASKS = ("nucleus", "shrunk", "touching")
"""The heads whose map is a probability; their maps come first."""

MAPS = tuple(name for maps in HEADS.values() for name in maps)
"""All maps, in the order in which targets are drawn."""

MASK_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "weighted_cross_entropy": weighted_cross_entropy,
    "soft_dice": soft_dice,
}

_DECODERS = ("additive", "concat", "inception_se")
_PLAIN = "plain"
_INITIALISATION_OF = {"relu": "pytorch", "elu": "he", "selu": "lecun"}


@dataclass(frozen=True)
class NetworkConfig:
    """Parameters
    ----------
    encoder
        A timm model name, or ``"plain"`` for the plain U-Net's (section 5.2.1).
    weights
        ``"imagenet"``, ``"none"`` (from scratch) or the path of a local weights file; ``"none"`` for a plain encoder.
    depth
        Times that the encoder halves the size; the coarsest map has stride ``2 ** depth``.
    encoder_widths
        Of a plain encoder: channels of its ``depth + 1`` levels, fine to coarse. A timm encoder has its own.
    decoder
        ``"additive"`` (ours), ``"concat"`` (the U-Net's own, 5.2.1) or ``"inception_se"`` (5.2.3 and figure 3).
    widths
        Channels of the decoder's ``depth`` blocks, coarse to fine. The additive decoder of a timm encoder has
        one fewer: it ends at half the image's size. Multiples of 4 for ``"inception_se"``.
    convolutions
        Of the additive decoder: how many of 3 x 3 refine each block's sum, coarse to fine; one each if left empty.
    reduction
        Of ``"inception_se"``: r, by which squeeze-and-excitation narrows its hidden layer.
    activation
        ``"relu"``, ``"elu"`` or ``"selu"`` (5.4). A timm encoder keeps its own.
    padding
        ``"zero"`` or ``"mirror"`` around the maps of our own convolutions. A timm encoder pads with zeros.
    initialisation
        Of our own convolutions: ``"pytorch"``, ``"xavier"``, ``"he"`` or ``"lecun"``; ``"auto"`` is Xavier for
        a network with a plain encoder (5.2.1), and else what suits the activation: PyTorch's own for ReLU, He
        for ELU, LeCun for SELU.
    heads
        What the network predicts, of ``"nucleus"`` (always there), ``"shrunk"``, ``"touching"``, ``"offset"`` and
        ``"log_diameter"``. Their order is that, whatever the order here.
    """

    encoder: str = "tf_efficientnet_lite0"
    weights: str = "imagenet"
    depth: int = 4
    encoder_widths: tuple[int, ...] = ()
    decoder: str = "additive"
    widths: tuple[int, ...] = (160, 96, 64)
    convolutions: tuple[int, ...] = ()
    reduction: int = 16
    activation: str = "relu"
    padding: str = "zero"
    initialisation: str = "auto"
    heads: tuple[str, ...] = tuple(HEADS)

    def __post_init__(self) -> None:
        _one_of("decoder", self.decoder, _DECODERS)
        _one_of("activation", self.activation, tuple(ACTIVATIONS))
        _one_of("padding", self.padding, tuple(PADDINGS))
        _one_of("initialisation", self.initialisation, ("auto", "pytorch", *INITIALISERS))
        for head in self.heads:
            _one_of("each of heads", head, tuple(HEADS))
        if "nucleus" not in self.heads or len(set(self.heads)) < len(self.heads):
            raise UsageError(f"heads must hold nucleus, and each head once, got {list(self.heads)}")
        if self.reduction < 1:
            raise UsageError(f"reduction must be at least 1, got {self.reduction}")
        blocks = self.depth - 1 if self.ends_at_half else self.depth
        if self.depth < 2 or len(self.widths) != blocks or min(self.widths) < 1:
            number = (
                "one positive width fewer than its depth" if self.ends_at_half else "as many positive widths"
            )
            raise UsageError(
                f"a U-Net with this encoder and the {self.decoder} decoder has a depth of at least 2 and {number}, "
                f"got depth {self.depth} and widths {list(self.widths)}"
            )
        if self.decoder == "inception_se" and any(width % 4 for width in self.widths):
            raise UsageError(
                f"widths of the inception_se decoder must be multiples of 4, got {list(self.widths)}"
            )
        self._check_convolutions()
        if self.is_plain:
            self._check_plain()
        elif self.encoder_widths:
            raise UsageError(
                f"encoder_widths are for encoder = 'plain'; {self.encoder} has widths of its own"
            )

    def _check_convolutions(self) -> None:
        if not self.convolutions:
            return
        if self.decoder != "additive":
            raise UsageError(
                f"convolutions are for the additive decoder; the {self.decoder} decoder has its own"
            )
        if len(self.convolutions) != len(self.widths) or min(self.convolutions) < 1:
            raise UsageError(
                f"convolutions must be as many positive numbers as widths, {len(self.widths)}, "
                f"got {list(self.convolutions)}"
            )

    def _check_plain(self) -> None:
        if self.weights != "none":
            raise UsageError("there are no weights for the plain encoder; set weights = 'none'")
        if len(self.encoder_widths) != self.depth + 1 or min(self.encoder_widths) < 1:
            raise UsageError(
                f"a plain encoder of depth {self.depth} needs encoder_widths of {self.depth + 1} positive numbers, "
                f"fine to coarse, such as {[64 << level for level in range(self.depth + 1)]}; "
                f"got {list(self.encoder_widths)}"
            )

    @property
    def is_plain(self) -> bool:
        return self.encoder == _PLAIN

    @property
    def ends_at_half(self) -> bool:
        """Whether the decoder ends at stride 2 and the head enlarges: the cheapest, and what the default does."""
        return self.decoder == "additive" and not self.is_plain

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the output maps, in order."""
        return tuple(name for head, maps in HEADS.items() if head in self.heads for name in maps)


def _one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{key} must be one of {', '.join(known)}, got {value!r}")


@dataclass(frozen=True)
class LossConfig:
    """Losses of the masks, and weights of the heads in the sum; those of heads that are not there are not used.

    Parameters
    ----------
    masks
        Loss of the nucleus, shrunk and touching maps: ``"cross_entropy"``, ``"weighted_cross_entropy"``,
        ``"soft_dice"``, or a sum of them, such as ``"cross_entropy+soft_dice"`` (section 5.5).
    by_head
        The same for single masks, by the name of the head.
    nucleus, shrunk, touching, offset, log_diameter
        Weights. Offset and diameter have smooth L1 as their loss.
    """

    masks: str = "cross_entropy+soft_dice"
    by_head: dict[str, str] = field(default_factory=dict)
    nucleus: float = 1.0
    shrunk: float = 1.0
    touching: float = 1.0
    offset: float = 2.0
    log_diameter: float = 0.3

    def __post_init__(self) -> None:
        for head in self.by_head:
            _one_of("each key of by_head", head, MASKS)
        for text in (self.masks, *self.by_head.values()):
            terms = _terms(text)
            for term in terms:
                _one_of("each loss of a mask", term, tuple(MASK_LOSSES))
            if len(set(terms)) < len(terms):
                raise UsageError(f"a loss of a mask adds each term once, got {text!r}")
        check_weights({head: getattr(self, head) for head in HEADS})

    def terms(self, head: str) -> tuple[str, ...]:
        """Names of the losses whose sum is the loss of a mask."""
        return _terms(self.by_head.get(head, self.masks))


def _terms(text: str) -> tuple[str, ...]:
    return tuple(term.strip() for term in text.split("+"))


class MultiheadUNetNetwork(nn.Module):
    """``(N, 3, H, W)`` in ``[0, 1]``, sides multiples of ``stride`` -> ``(N, K, H, W)``: the maps, masks as logits.

    Raises
    ------
    NuxelError
        In training, if batch normalisation is left with a single value a channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        style = ConvStyle(config.activation, config.padding)
        self.encoder: Encoder | PlainEncoder
        mean: tuple[float, ...] = IMAGENET_MEAN
        std: tuple[float, ...] = IMAGENET_STD
        if config.is_plain:
            self.encoder = PlainEncoder(config.encoder_widths, style)
        else:
            self.encoder = Encoder(config.encoder, config.depth)
            mean, std = self.encoder.mean, self.encoder.std
            if config.weights != "none":
                path = None if config.weights == "imagenet" else config.weights
                load_imagenet_weights(self.encoder, config.encoder, path)
        self.decoder = UNetDecoder(self.encoder.channels, config.widths, _up_blocks(config, style))
        maps = len(config.maps)
        self.head: nn.Module = (
            SubpixelHead(self.decoder.channels, maps)
            if config.ends_at_half
            else nn.Conv2d(self.decoder.channels, maps, 1)
        )
        _initialise(self, config)
        self.stride = 2**config.depth
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        try:
            maps: Tensor = in_full(self.head(self.decoder(self.encoder((images - self.mean) / self.std))))
        except ValueError as error:
            raise explained(error, images) from None
        return maps


def _up_blocks(config: NetworkConfig, style: ConvStyle) -> list[Callable[[int, int, int], nn.Module]]:
    number = len(config.widths)
    if config.decoder == "additive":
        return [
            partial(UpBlock, style=style, convolutions=count)
            for count in config.convolutions or (1,) * number
        ]
    if config.decoder == "inception_se":
        return [partial(InceptionSEUpBlock, reduction=config.reduction, style=style)] * number
    return [partial(ConcatUpBlock, style=style)] * number


def _initialise(network: MultiheadUNetNetwork, config: NetworkConfig) -> None:
    scheme = config.initialisation
    if scheme == "auto":
        scheme = "xavier" if config.is_plain else _INITIALISATION_OF[config.activation]
    for part in (network.encoder, network.decoder, network.head):
        if not isinstance(part, Encoder):
            initialise(part, scheme)


@dataclass(frozen=True)
class MultiheadUNet:
    """Everything that training, export and prediction ask of a system."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    targets: TargetRule = field(default_factory=TargetRule)
    loss: LossConfig = field(default_factory=LossConfig)
    decoder_rule: ClumpRule = field(default_factory=ClumpRule)

    name = "multihead_unet"
    decoder = "clumps"
    diameters = (12.0, 60.0)
    parts = ("encoder", "decoder")
    needs_background = True
    most = None

    def __post_init__(self) -> None:
        for head in self.loss.by_head:
            _one_of("each key of by_head of the loss", head, self.masks)

    @property
    def learned(self) -> tuple[str, ...]:
        """Names of the maps that the network learns, in order."""
        return self.network.maps

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the maps that predicting needs, in order: all but the offsets, which only teach.

        Pixels that vote for the centre of their nucleus found no better markers than the masks do.
        """
        return tuple(name for name in self.learned if name not in HEADS["offset"])

    @property
    def masks(self) -> tuple[str, ...]:
        """Names of the maps that are probabilities; they come first."""
        return tuple(name for name in self.maps if name in MASKS)

    @property
    def stride(self) -> int:
        """The sides of the network's input are multiples of this."""
        return 1 << self.network.depth

    def build(self) -> MultiheadUNetNetwork:
        return MultiheadUNetNetwork(self.network)

    def draw_targets(self, labels: NDArray[np.int32]) -> NDArray[np.float16]:
        """``(H, W)`` labels -> the target of each map, ``(K, H, W)`` float16, exact to a thousandth."""
        drawn = torch.from_numpy(multihead_targets(labels, self.targets)).half().numpy()
        return drawn if self.learned == MAPS else drawn[[MAPS.index(name) for name in self.learned]]

    def compute_loss(
        self, network: nn.Module, images: Tensor, targets: Tensor, annotated: Tensor
    ) -> dict[str, Tensor]:
        """The weighted losses by the name of the head, and their sum under ``loss``.

        ``targets`` are ``(N, K, H, W)`` in the order of the maps that are learned, ``annotated`` ``(N, 1, H, W)`` in
        {0, 1}.
        """
        outputs = network(images)
        count = len(self.masks)
        terms = {head: self.loss.terms(head) for head in self.masks}
        values = {
            term: MASK_LOSSES[term](outputs[:, :count], targets[:, :count], annotated)
            for term in dict.fromkeys(term for of_head in terms.values() for term in of_head)
        }
        parts = {
            head: getattr(self.loss, head) * torch.stack([values[term][index] for term in terms[head]]).sum()
            for index, head in enumerate(self.masks)
        }
        inside = targets[:, :1] * annotated
        for head, beta in (("offset", 0.1), ("log_diameter", 0.25)):
            if head in self.network.heads:
                first = self.learned.index(HEADS[head][0])
                of_head = slice(first, first + len(HEADS[head]))
                parts[head] = getattr(self.loss, head) * masked_smooth_l1(
                    outputs[:, of_head], targets[:, of_head], inside, beta
                )
        return {**parts, "loss": torch.stack(list(parts.values())).sum()}

    def answer(self, network: nn.Module, images: Tensor) -> Tensor:
        """What the exported graph returns: masks as probabilities, other maps that predicting needs as they are."""
        outputs = network(images)
        count = len(self.masks)
        parts = [torch.sigmoid(outputs[:, :count])]
        for name in self.maps[count:]:
            index = self.learned.index(name)
            parts.append(outputs[:, index : index + 1])
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def parameter_groups(self, network: nn.Module) -> dict[str, list[nn.Parameter]]:
        """Parameters by the part of the recipe that sets their learning rate."""
        if not isinstance(network, MultiheadUNetNetwork):
            raise TypeError(f"expected a MultiheadUNetNetwork, got {type(network).__name__}")
        encoder = list(network.encoder.parameters())
        own = {id(p) for p in encoder}
        return {"encoder": encoder, "decoder": [p for p in network.parameters() if id(p) not in own]}

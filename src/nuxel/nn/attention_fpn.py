"""The top-down half of a feature pyramid, plain or with residual attention gates.

Source: "Nuclei Detection Using Residual Attention Feature Pyramid Networks" (attention paper), sections III to VI; the
plain pyramid is that of Lin et al. 2017, its reference 7.

What the paper leaves open, and how it is read here:

- y is the coarser level's merged map *before* its own 3 x 3 convolution h, as in the plain pyramid, enlarged by 2 with
  nearest neighbours. "We also replaced the re-sampling module" (section V): alpha has the size of x, and is itself
  never resampled.
- q starts as the identity. Only so does gamma = 0 mean what section V wants of it, that the network first relies on the
  weights of a pyramid without gates.
- The coarsest level has no y: z = h(g(x)).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nuxel.errors import UsageError
from nuxel.nn.decomposed_attention import DecomposedSelfAttention

VARIANTS = ("vanilla", "no_gamma", "pixel", "concat", "proposed", "non_local")
"""The rows of the paper's table I, in its order, and its future work."""

EXTRAS = ("none", "pool")
"""What follows the coarsest level."""


def _conv(inputs: int, outputs: int, kernel: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size, drawn as torchvision's pyramid draws its own.

    No activation or normalisation follows in the top-down path, so the variance has to stay as it is.
    """
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _enlarge(y: Tensor) -> Tensor:
    return nn.functional.interpolate(y, scale_factor=2.0, mode="nearest")


class AttentionGate(nn.Module):
    """How much of each pixel of x to let through: ``alpha = sigmoid(psi(ReLU(theta(x) + phi(y))))``, equation 2.

    Parameters
    ----------
    inputs
        Channels of x.
    width
        N, channels of y.
    variant
        ``"proposed"`` and ``"no_gamma"``: theta, phi and psi are 1 x 1 x N. ``"pixel"``: they are 1 x 1 x 1, one alpha
        for all channels of a pixel. ``"concat"``: ``ReLU([theta(x), phi(y)])`` of 2 N channels instead of the sum,
        equation 6. ``"non_local"``: psi sees ``A(ReLU(theta(x) + phi(y)))``, where A is
        :class:`~nuxel.nn.decomposed_attention.DecomposedSelfAttention`.
    """

    def __init__(self, inputs: int, width: int, variant: str) -> None:
        super().__init__()
        hidden = 1 if variant == "pixel" else width
        self.concat = variant == "concat"
        self.theta = _conv(inputs, hidden)
        self.phi = _conv(width, hidden)
        self.context = DecomposedSelfAttention(width) if variant == "non_local" else nn.Identity()
        self.psi = _conv(2 * hidden if self.concat else hidden, hidden)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``(M, inputs, 2 h, 2 w)`` and ``(M, N, h, w)`` -> alpha in (0, 1), ``(M, N or 1, 2 h, 2 w)``."""
        # A 1 x 1 convolution of what was enlarged is the same as enlarging what was convolved, at four times the work.
        fine, coarse = self.theta(x), _enlarge(self.phi(y))
        joint = torch.cat([fine, coarse], 1) if self.concat else fine + coarse
        return torch.sigmoid(self.psi(self.context(torch.relu(joint))))


class PlainMerge(nn.Module):
    """Add a level to the enlarged coarser one: ``g(x) + y``."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.g = _conv(inputs, width)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, None]:
        """``(M, inputs, 2 h, 2 w)`` and ``(M, N, h, w)`` -> ``(M, N, 2 h, 2 w)``, and no alpha."""
        return self.g(x) + _enlarge(y), None


class GatedMerge(nn.Module):
    """Add a gated level to the enlarged coarser one: ``gamma alpha(x, y) g(x) + g(x) + q(y)``, equation 4 without h.

    Parameters
    ----------
    inputs, width, variant
        As for the gate. gamma is a learnable scalar that starts at 0. In ``"no_gamma"`` it is 1: for that variant the
        paper prints equation 4 again, gamma and all, but says that "the gamma parameter is not included".
    """

    def __init__(self, inputs: int, width: int, variant: str) -> None:
        super().__init__()
        self.g = _conv(inputs, width)
        self.q = _conv(width, width)
        nn.init.dirac_(self.q.weight)
        self.gate = AttentionGate(inputs, width, variant)
        self.gamma = 1.0 if variant == "no_gamma" else nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """``(M, inputs, 2 h, 2 w)`` and ``(M, N, h, w)`` -> ``(M, N, 2 h, 2 w)``, and alpha."""
        alpha: Tensor = self.gate(x, y)
        return self.g(x) * (1.0 + self.gamma * alpha) + _enlarge(self.q(y)), alpha


class AttentionFPN(nn.Module):
    """A feature pyramid on the maps of a backbone: C2, C3, ... -> P2, P3, ..., and the gates' alphas.

    Parameters
    ----------
    in_channels
        Of each map of the backbone, fine to coarse.
    width
        N, channels of each level of the pyramid.
    variant
        One of :data:`VARIANTS`. ``"vanilla"`` is z = h(g(x) + y), Lin et al.'s; all others are
        z = h(gamma alpha g(x) + g(x) + q(y)), equation 4 of the attention paper, and differ in gamma or in the gate:
        see :class:`GatedMerge` and :class:`AttentionGate`. ``"non_local"`` is the paper's future work, "other forms of
        gating functions, like non-local gating": only the gate changes, so that alpha at a pixel is decided by the
        whole map while the residual block, gamma and the meaning of alpha stay, and the row compares with the others.
        It starts as the same function as ``"proposed"``.
    extra
        ``"pool"`` adds a level: every second pixel of the coarsest one returned (Mask R-CNN's P6, a max-pooling of
        1 x 1 with stride 2). ``"none"`` adds none.
    levels
        How many levels are returned, from the finest; all of them without. The others only lead down to these and have
        no h. The attention paper has C2 to C5 and 3 levels: P2, P3 and P4 are its building blocks, C5 the top.

    Raises
    ------
    UsageError
        If ``variant`` or ``extra`` is unknown, or there are fewer maps than levels, or no level.

    Examples
    --------
    >>> import torch
    >>> fpn = AttentionFPN([8, 16, 32], width=4, levels=2)
    >>> pyramid, alphas = fpn([torch.randn(1, 8, 8, 12), torch.randn(1, 16, 4, 6), torch.randn(1, 32, 2, 3)])
    >>> [tuple(level.shape) for level in pyramid]
    [(1, 4, 8, 12), (1, 4, 4, 6)]
    >>> [tuple(alpha.shape) for alpha in alphas]
    [(1, 4, 8, 12), (1, 4, 4, 6)]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        width: int = 256,
        variant: str = "proposed",
        extra: str = "none",
        levels: int | None = None,
    ) -> None:
        super().__init__()
        for key, value, known in (("variant", variant, VARIANTS), ("extra", extra, EXTRAS)):
            if value not in known:
                raise UsageError(f"{key} of the pyramid must be one of {', '.join(known)}, got {value!r}")
        count = len(in_channels) if levels is None else levels
        if not 1 <= count <= len(in_channels):
            raise UsageError(
                f"a pyramid on {len(in_channels)} maps has 1 to {len(in_channels)} levels, got {count}"
            )
        self.pool = extra == "pool"
        self.merges = nn.ModuleList(
            PlainMerge(inputs, width) if variant == "vanilla" else GatedMerge(inputs, width, variant)
            for inputs in in_channels[:-1]
        )
        self.top = _conv(in_channels[-1], width)
        self.h = nn.ModuleList(_conv(width, width, 3) for _ in range(count))

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """From the backbone's maps to the pyramid's.

        Parameters
        ----------
        maps
            ``(M, in_channels, H, W)`` each, fine to coarse; each side is twice the next map's.

        Returns
        -------
        pyramid
            ``(M, N, H, W)`` each, fine to coarse.
        alphas
            In (0, 1), of each level that has a coarser one, fine to coarse: ``(M, N, H, W)``, or ``(M, 1, H, W)`` for
            ``"pixel"``. Empty for ``"vanilla"``.
        """
        merged: list[Tensor] = [self.top(maps[-1])]
        alphas: list[Tensor] = []
        for x, merge in zip(reversed(maps[:-1]), reversed(self.merges), strict=True):
            z, alpha = merge(x, merged[0])
            merged.insert(0, z)
            if alpha is not None:
                alphas.insert(0, alpha)
        pyramid: list[Tensor] = [h(z) for h, z in zip(self.h, merged, strict=False)]
        if self.pool:
            pyramid.append(nn.functional.max_pool2d(pyramid[-1], 1, stride=2))
        return pyramid, alphas

"""Self-attention over a whole map at a cost that is linear in its pixels.

Source: "Robust Nucleus Detection With Partially Labeled Exemplars", section II, after Shen et al. 2018 ("Factorized
attention", arXiv 1812.01243).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nuxel.errors import UsageError


class DecomposedSelfAttention(nn.Module):
    """Add to each location what it attends to: ``x + W_f((S(W_b x, C)(W_v x)^T)^T S(W_c x, N))``.

    ``(M, C, H, W)`` stays as it is in shape. Of the N = H W locations, location i attends to location j with

        ``A[i, j] = sum over k of S(W_c x, N)[k, i] S(W_b x, C)[k, j]``

    and the formula is ``x + W_f (W_v x) A^T``, multiplied in the order that never makes the N x N matrix A.

    Each basis k is a map of where to look, the coefficients of a location say how much of each. The paper's
    "channelwise" softmax is therefore one for each channel, over the locations, and its "locationwise" softmax one for
    each location, over the channels: then, and only then, is what a location attends to distributed over all
    locations with the sum 1. (With the axes the other way round it is the columns of A whose sum is 1.)

    W_f starts at zero, so that the block starts as the identity and can be put behind pretrained features (Wang et
    al. 2018, section 3.3; the paper does not say). The matrices are 1 x 1 convolutions without bias, as in the formula.

    The answer at a location depends on the whole window.

    Parameters
    ----------
    channels
        C, of the map.
    hidden
        Number of bases and of values: C_b = C_v, 64 in the paper.

    Examples
    --------
    >>> import torch
    >>> block = DecomposedSelfAttention(channels=8, hidden=4)
    >>> features = torch.randn(2, 8, 6, 5)
    >>> torch.equal(block(features), features)
    True
    >>> seen = block.attention_map(features[0], [(3, 2)])
    >>> seen.shape, round(seen.sum().item(), 4)
    (torch.Size([6, 5]), 1.0)
    """

    def __init__(self, channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.basis = nn.Conv2d(channels, hidden, 1, bias=False)
        self.coefficient = nn.Conv2d(channels, hidden, 1, bias=False)
        self.value = nn.Conv2d(channels, hidden, 1, bias=False)
        self.out = nn.Conv2d(hidden, channels, 1, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.basis(x).flatten(2).softmax(2) @ self.value(x).flatten(2).transpose(1, 2)
        coefficients = self.coefficient(x).softmax(1)
        attended = (seen.transpose(1, 2) @ coefficients.flatten(2)).view_as(coefficients)
        result: Tensor = x + self.out(attended)
        return result

    def attention_map(self, features: Tensor, locations: Sequence[tuple[int, int]]) -> Tensor:
        """What the queried locations attend to, on average: figure 1 of the paper.

        Parameters
        ----------
        features
            The block's input for one image, ``(C, H, W)``.
        locations
            One or more (row, column) of ``features``: one pixel, or those of a nucleus.

        Returns
        -------
        Tensor
            ``(H, W)``, not negative, with the sum 1: the mean of the rows of A of these locations.

        Raises
        ------
        UsageError
            If there is no location, or one lies outside the map.
        """
        height, width = features.shape[1:]
        outside = [
            (row, column) for row, column in locations if not (0 <= row < height and 0 <= column < width)
        ]
        if outside or not locations:
            what = f"got {outside[0]}" if outside else "got none"
            raise UsageError(
                f"attention is asked for at locations (row, column) within the {height} x {width} map, {what}"
            )
        rows, columns = zip(*locations, strict=True)
        coefficients = self.coefficient(features).softmax(0)[:, rows, columns].mean(1)
        seen: Tensor = coefficients @ self.basis(features).flatten(1).softmax(1)
        return seen.view(height, width)

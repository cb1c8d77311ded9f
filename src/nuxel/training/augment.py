"""How training views may differ from the images that they come from.

Source: multi-head U-Net paper, section 5.1 (rotations, flips, channel shuffle, zoom, shear) and section 8, future work
(blur, Gaussian noise, pixel dropout, emboss, piecewise affine, perspective, brightness and contrast, synthetic
conglomerates); the paper gives no sizes. What goes beyond it is in :mod:`nuxel.training.warp`,
:mod:`nuxel.training.appearance` and :mod:`nuxel.training.paint`.

Everything draws from the generator that is handed in, never from a global one, so that a sample is a pure function
of (seed, position). A change whose probability is 0 by default draws nothing while it is 0, so that a recipe's
samples stay the same when a later version can do more.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from nuxel.errors import UsageError

Rng = np.random.Generator


@dataclass(frozen=True)
class Augmentation:
    """How much to vary. Every ``*_p`` is the probability of one change for one sample.

    Parameters
    ----------
    diameter, diameter_octaves
        The image is zoomed so that its median nucleus is about ``diameter`` pixels across: a log-normal draw with
        this spread in octaves.
    wide_p, wide_range
        With this probability the diameter is drawn evenly (in logarithm) from this range instead.
    zoom_range
        If given, the four keys above are not used: the zoom is drawn evenly (in logarithm) from this range, which lies
        in ``[1/8, 8]``. 1 is the image's own scale. A recipe that gives none of the five keys has
        ``(0.8, 1.25)`` where the network does not predict sizes: images then keep their own scale in prediction.
    turn
        Whether views are turned by any angle; without it they are only flipped, along one axis, both or none.
    stretch, shear
        Greatest logarithm of the factor along one axis (the other axis gets its inverse), and greatest shear.
    cluster_p
        Nuclei of the image are pasted beside others: :func:`nuxel.data.clusters.paste_clusters`.
    elastic_p, piecewise_p, perspective_p
        A smooth shift of pixels; one that is affine within each triangle of a grid; a tilted plane.
    concentration_p
        In a colour image, more or less of each stain: haematoxylin, eosin and the rest are told apart by colour
        deconvolution (Ruifrok and Johnston 2001), and each is scaled and shifted (Tellez et al. 2018).
    paint_p
        Nuclei and background get new colours and textures: :func:`nuxel.training.paint.paint`.
    restain_p
        In a colour image, other dyes and strengths instead: :func:`nuxel.training.appearance.restained`.
    holes_p
        Places without tissue between the nuclei: :func:`nuxel.training.appearance.with_holes`.
    compression_p
        What JPEG leaves of it.
    light_p
        Gamma, gain and shift: brightness and contrast.
    dropout_p
        Some pixels turn black, in all channels together or each for itself.
    """

    diameter: float = 24.0
    diameter_octaves: float = 0.5
    wide_p: float = 0.25
    wide_range: tuple[float, float] = (7.0, 110.0)
    stretch: float = 0.15
    shear: float = 0.15
    elastic_p: float = 0.25
    nucleus_contrast_p: float = 0.25
    stain_p: float = 0.6
    shuffle_p: float = 0.15
    grey_p: float = 0.15
    tint_p: float = 0.15
    invert_p: float = 0.25
    light_p: float = 0.8
    shading_p: float = 0.25
    blur_p: float = 0.3
    resolution_p: float = 0.15
    noise_p: float = 0.35
    zoom_range: tuple[float, float] | None = None
    cluster_p: float = 0.0
    piecewise_p: float = 0.0
    perspective_p: float = 0.0
    emboss_p: float = 0.0
    dropout_p: float = 0.0
    concentration_p: float = 0.0
    paint_p: float = 0.0
    restain_p: float = 0.0
    holes_p: float = 0.0
    compression_p: float = 0.0
    turn: bool = True

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name.endswith("_p") and not 0 <= value <= 1:
                raise UsageError(f"{name} is a probability and must lie between 0 and 1, got {value}")
        for name in ("diameter_octaves", "stretch", "shear"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be finite and not negative, got {getattr(self, name)}")
        low, high = self.wide_range
        if not (0 < self.diameter < math.inf and 0 < low <= high < math.inf):
            raise UsageError(
                f"diameters must be positive and in order, got {self.diameter} and {self.wide_range}"
            )
        if self.zoom_range is not None and not 1 / 8 <= self.zoom_range[0] <= self.zoom_range[1] <= 8:
            raise UsageError(f"zoom_range must lie between 1/8 and 8 and be in order, got {self.zoom_range}")


def chosen(probability: float, rng: Rng) -> bool:
    """Whether to make a change; draws nothing if it never is."""
    return probability > 0 and rng.random() < probability

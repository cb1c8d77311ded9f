"""One image, from normalised pixels to nuclei."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nuxel.decode.decoders import DECODERS, DETECTIONS, Rule
from nuxel.decode.paste import largest_region
from nuxel.errors import NuxelError, UsageError
from nuxel.image.reader import refuse_too_large
from nuxel.image.resample import ScaledImage, resize_labels, resize_map
from nuxel.instances import Instances
from nuxel.labels.runs import find_runs
from nuxel.predict.card import ModelCard
from nuxel.predict.detect import Found, find
from nuxel.predict.networks import Detector, Network, Remembering, Turned
from nuxel.predict.scale import Size, choose_scale, doubt_size, estimate_diameter
from nuxel.predict.stages import LARGEST_KEPT, LARGEST_STAGED, LARGEST_WINDOW
from nuxel.tiling.grid import Tile, fit_tile, plan_tiles, plan_windows
from nuxel.tiling.stitch import stitch

Seen = NDArray[np.uint8] | Found
"""What a decoder makes nuclei of: maps ``(K, h, w)`` at the network's scale, or detections in pixels of the image."""


_LARGEST_SCALE = 16
"""Four times what nuxel itself chooses at most: more is a slip, a percentage for instance, and would take hours."""


@dataclass(frozen=True)
class Options:
    """What a user may choose; None leaves the choice to the model or the image.

    Parameters
    ----------
    threshold
        Least nucleus probability of a pixel, or of a detection, in ``(0, 1)``.
    min_area
        Smaller nuclei are dropped; pixels of the image. In place of the model's own least area.
    scale, diameter
        The scale to run the network at, 1 for the image's own and at most 16, or the diameter of the nuclei in pixels;
        at most one of them.
    tile_size
        Greatest side of what a tile owns, in pixels at the network's scale; None for as large as memory should allow.
        Networks that run at one fixed window have no choice of tiles.
    tta
        Test-time augmentation: the mean of the answers to eight turned and mirrored views, at eight times the work.

    Raises
    ------
    UsageError
        If a value is out of its range.
    """

    threshold: float | None = None
    min_area: int | None = None
    scale: float | None = None
    diameter: float | None = None
    tile_size: int | None = None
    tta: bool = False

    def __post_init__(self) -> None:
        for name in ("threshold", "scale", "diameter"):
            _check_kind(name, getattr(self, name), Real, "a number")
        if not isinstance(self.tta, (bool, np.bool_)):
            raise UsageError(f"tta must be True or False, got {self.tta!r}")
        for name in ("min_area", "tile_size"):
            _check_kind(name, getattr(self, name), Integral, "a whole number")
        if self.scale is not None and self.diameter is not None:
            raise UsageError("give either the scale or the diameter, not both")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise UsageError(f"the threshold must lie between 0 and 1, got {self.threshold}")
        if self.min_area is not None and self.min_area < 0:
            raise UsageError(f"the least area must not be negative, got {self.min_area}")
        for name, value in (("scale", self.scale), ("diameter", self.diameter)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"the {name} must be a positive number, got {value}")
        if self.scale is not None and self.scale > _LARGEST_SCALE:
            raise UsageError(
                f"the scale must be at most {_LARGEST_SCALE}, got {self.scale}; 1 is the image's own size"
            )
        if self.tile_size is not None and self.tile_size < 1:
            raise UsageError(f"the tile size must be positive, got {self.tile_size}")


def _check_kind(name: str, value: object, kind: type, described: str) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
        raise UsageError(f"{name} must be {described}, got {value!r}")


@dataclass(frozen=True)
class Segmented:
    """The nuclei of an image, the size it was done at, and what the user should know of the result, if anything."""

    nuclei: Instances
    size: Size
    warning: str = ""


def segment_normalised(
    image: NDArray[np.uint8],
    network: Network | Detector,
    options: Options,
    pixel_size_um: float | None = None,
) -> Segmented:
    """Find the nuclei of a normalised image ``(H, W, 3)`` uint8."""
    size, seen = look_at(image, network, options, pixel_size_um)
    nuclei = decode_seen(seen, image.shape[:2], network.card, options)
    return Segmented(nuclei, size, warning_of(size, seen, network.card))


def look_at(
    image: NDArray[np.uint8],
    network: Network | Detector,
    options: Options,
    pixel_size_um: float | None = None,
) -> tuple[Size, Seen]:
    """The scale to run a normalised image at, and what the decoder needs at that scale.

    Raises
    ------
    UsageError
        If the options ask for what the network cannot do.
    """
    check_options(network.card, options)
    if network.card.decoder == DETECTIONS:
        size = _asked_size(network.card, options) or Size(None, 1.0)
        return size, find(_view(image, size.scale), cast(Detector, network))
    network = Remembering(cast(Network, network))
    size = choose_size(image, network, options, pixel_size_um)
    maps = run_network(_view(image, size.scale), network, options)
    if image.shape[0] * image.shape[1] > LARGEST_KEPT:
        network.release()
    return size, maps


def _view(image: NDArray[np.uint8], scale: float) -> ScaledImage:
    view = ScaledImage(image, scale)
    try:
        # as a grey image: what could be read is not too large at its own scale
        refuse_too_large(*view.shape, 1)
    except NuxelError:
        raise NuxelError(
            f"the image's {image.shape[0]} x {image.shape[1]} pixels at the scale {scale:g} would be {view.shape[0]} x "
            f"{view.shape[1]}, more than can be worked on here; give a smaller scale"
        ) from None
    return view


def check_options(card: ModelCard, options: Options) -> None:
    """Raise UsageError if the options ask for what a network cannot do."""
    if options.tta and card.decoder == DETECTIONS:
        raise UsageError(
            f"test-time augmentation averages maps, and the model {card.title} reports boxes; leave it out"
        )


def choose_size(
    image: NDArray[np.uint8], network: Network, options: Options, pixel_size_um: float | None = None
) -> Size:
    """The scale to run an image at: as the user says, or as its nuclei ask for.

    A network that does not see sizes runs at the image's own, but for what pixel size or user say.
    """
    card = network.card
    if size := _asked_size(card, options):
        return size
    if "log_diameter" not in card.maps:
        return Size(None, 1.0)
    size = choose_scale(estimate_diameter(image, network, pixel_size_um), card.diameters)
    return replace(size, note=doubt_size(size.diameter, pixel_size_um))


def _asked_size(card: ModelCard, options: Options) -> Size | None:
    if options.scale is not None:
        return Size(None, options.scale)
    return None if options.diameter is None else choose_scale(options.diameter, card.diameters)


def run_network(view: ScaledImage, network: Network, options: Options) -> NDArray[np.uint8]:
    """The maps that the decoder needs of a whole view, ``(K, h, w)`` uint8: probabilities times 255, tile by tile."""
    card = network.card
    needed = [card.maps.index(name) for name in decoder_rule(card, options).maps]
    if options.tta:
        network = Turned(network)

    def answer(tile: Tile) -> NDArray[np.uint8]:
        maps = network(view.window(tile.window), tile.inner)[needed]
        if np.isnan(maps.min()):
            raise NuxelError(
                f"the maps of the model {card.title} are not numbers (NaN): its weights are damaged"
            )
        np.multiply(maps, 255, out=maps)
        np.rint(maps, out=maps)
        return maps.astype(np.uint8)

    return stitch(view.shape, len(needed), _tiles(view.shape, card, options), answer)


def _tiles(shape: tuple[int, int], card: ModelCard, options: Options) -> Iterable[Tile]:
    if card.window is not None:
        return plan_windows(shape, card.window)
    # turned views hold several times as many maps
    largest = LARGEST_STAGED if card.stages and not options.tta else LARGEST_WINDOW
    size = options.tile_size or fit_tile(shape, card.reach, card.stride, largest)
    return plan_tiles(shape, size, card.reach, card.stride)


def decoder_rule(card: ModelCard, options: Options) -> Rule:
    """The decoder's parameters: the model's, unless the user says otherwise.

    Raises
    ------
    NuxelError
        If the model wants a decoder or parameters that this nuxel does not have, or that need maps it lacks.
    """
    decoder = DECODERS.get(card.decoder)
    if decoder is None or not {field.name for field in fields(decoder.rule)}.issuperset(card.decoder_rule):
        raise NuxelError(
            f"the model {card.title} wants the decoder {card.decoder!r} with {dict(card.decoder_rule)}, which this "
            "nuxel does not have; upgrade nuxel or export the model again"
        )
    rule: Rule = decoder.rule(**card.decoder_rule)
    if missing := [name for name in rule.maps if name not in card.maps]:
        raise NuxelError(f"the model {card.title} has no map {missing[0]!r}, which its decoder needs")
    if options.min_area is not None:
        rule = replace(rule, min_area=1)  # the user's holds at the image's own size, where decoding ends
    return rule if options.threshold is None else rule.with_threshold(options.threshold)


def decode_seen(seen: Seen, shape: tuple[int, int], card: ModelCard, options: Options) -> Instances:
    """Nuclei at the image's own size from what the network saw of it."""
    if isinstance(seen, Found):
        nuclei = DECODERS[DETECTIONS].decode(seen.detections, shape, decoder_rule(card, options))
        return _at_least(nuclei, nuclei.labels, options.min_area or 1)
    return decode_maps(seen, shape, card, options)


def warning_of(size: Size, seen: Seen, card: ModelCard) -> str:
    """What the user should know of a result: that its size is doubtful, or that nuclei may be missing; else nothing."""
    if not isinstance(seen, Found) or not seen.full_windows:
        return size.note
    return (
        f"nuclei may be missing: {seen.full_windows} window(s) of {card.window} pixels hold as many as the model "
        f"reports at most ({card.most}); enlarge the image with --scale"
    )


def decode_maps(
    maps: NDArray[np.uint8], shape: tuple[int, int], card: ModelCard, options: Options
) -> Instances:
    """Nuclei at the image's own size from maps at the network's.

    Maps of a shrunken view are enlarged before decoding, so that outlines are drawn at full size; nuclei of an
    enlarged view are decoded there, where neighbours are furthest apart, and then shrunk.
    """
    rule = decoder_rule(card, options)
    if maps.shape[1] < shape[0] or maps.shape[2] < shape[1]:
        area = shape[0] * shape[1] / (maps.shape[1] * maps.shape[2])
        maps = np.stack([resize_map(m, shape) for m in maps])
        rule = rule.enlarged(area)
    nuclei = DECODERS[card.decoder].decode(maps, rule)
    if nuclei.labels.shape == shape:
        return _at_least(nuclei, nuclei.labels, options.min_area or 1)
    labels = resize_labels(nuclei.labels, shape)
    _drop_splinters(labels)
    return _in_order(_at_least(nuclei, labels, options.min_area or 1))


def _in_order(nuclei: Instances) -> Instances:
    """Numbered in the order of their first pixel, as decoders do."""
    runs = find_runs(nuclei.labels)
    present, first = np.unique(runs.value, return_index=True)
    order = present[np.argsort(first)]
    order = order[order > 0]
    number = np.zeros(len(nuclei) + 1, np.int32)
    number[order] = np.arange(1, len(order) + 1)
    return Instances(number[nuclei.labels], nuclei.scores[order - 1])


def _drop_splinters(labels: NDArray[np.int32]) -> None:
    """Leave the largest part of each nucleus: shrinking by nearest neighbours may cut where it is narrow."""
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            own = labels[box] == number
            labels[box][own & ~largest_region(own)] = 0


def _at_least(nuclei: Instances, labels: NDArray[np.int32], min_area: int) -> Instances:
    """The nuclei that have ``min_area`` pixels left, renumbered."""
    if min_area <= 1 and labels is nuclei.labels:  # nothing can have gone
        return nuclei
    areas = np.bincount(labels.ravel(), minlength=len(nuclei) + 1)
    kept = areas >= max(1, min_area)
    kept[0] = False
    if kept[1:].all():
        return Instances(labels, nuclei.scores)
    number = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return Instances(number[labels], nuclei.scores[kept[1:]])

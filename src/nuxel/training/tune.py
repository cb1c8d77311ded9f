"""The decoder's parameters, chosen on validation images: the network runs once, the decoder many times."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nuxel.data.dataset import Annotated, read_annotated
from nuxel.decode.clumps import ClumpRule
from nuxel.decode.decoders import Rule
from nuxel.decode.detections import DetectionRule
from nuxel.decode.opening import OpeningRule
from nuxel.errors import UsageError
from nuxel.metrics.average_precision import MatchTally
from nuxel.predict.networks import Detector, Network
from nuxel.predict.pipeline import Options, Seen, decode_seen, decoder_rule, look_at

GRIDS: Mapping[type[Any], Mapping[str, Sequence[float | str]]] = {
    ClumpRule: {
        "threshold": (0.35, 0.4, 0.45, 0.5, 0.55, 0.6),
        "marker_threshold": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
        "min_marker_area": (2, 4, 8, 16, 24),
        "min_area": (8, 12, 16, 24, 32),
        "min_score": (0.0, 0.5, 0.6, 0.7, 0.75, 0.8),
    },
    OpeningRule: {
        "threshold": (0.35, 0.4, 0.45, 0.5, 0.55, 0.6),
        "degree": (0, 1, 2, 3, 4, 5, 6),
        "min_area": (8, 12, 16, 24, 32),
        "min_score": (0.0, 0.5, 0.6, 0.7, 0.75, 0.8),
    },
    DetectionRule: {
        "min_score": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
        "mask_threshold": (0.35, 0.4, 0.45, 0.5, 0.55),
        "mask_nms": (0.2, 0.3, 0.4, 0.5),
        "overlap": ("biggest", "best"),
        "min_area": (8, 12, 16, 24, 32),
    },
}
"""Values that are tried, by kind of rule. None so large that it would drop what is a nucleus elsewhere."""

LEAST_GAIN = 0.001
"""Gain in mAP below which a parameter stays: a few dozen images cannot tell."""

R = TypeVar("R", bound=Rule)


def tune_decoder(
    network: Network | Detector, annotated: Iterable[Annotated], held: Container[str] = ()
) -> tuple[Rule, float]:
    """The parameters with the best score on annotated images, starting from those of the network's card.

    Parameters
    ----------
    network
        A network; its card names the decoder's present parameters, of which ``split`` stays.
    annotated
        Images that were not trained on.
    held
        Names of parameters that stay as they are.

    Returns
    -------
    The parameters, and their mean over the images of the Data Science Bowl's mAP.
    """
    cases: list[tuple[Seen, tuple[int, int], NDArray[np.int32]]] = []
    for item in annotated:
        image, truth = read_annotated(item)
        if (truth < 0).all():  # nothing is known of it
            continue
        cases.append((look_at(image, network, Options())[1], (image.shape[0], image.shape[1]), truth))
    if not cases:
        raise UsageError("the images to choose the decoder's parameters on have no annotated pixel")

    def score(rule: Rule) -> float:
        card = dataclasses.replace(network.card, decoder_rule=dataclasses.asdict(rule))
        tally = MatchTally()
        for seen, shape, truth in cases:
            tally.add(truth, decode_seen(seen, shape, card, Options()).labels)
        return tally.mean_average_precision()

    return climb(decoder_rule(network.card, Options()), score, held)


def climb(rule: R, score: Callable[[R], float], held: Container[str] = ()) -> tuple[R, float]:
    """Vary one parameter at a time around the best so far, until a whole round over its grid changes nothing; those
    that are ``held`` stay.

    Examples
    --------
    >>> best, _ = climb(ClumpRule(), lambda rule: -abs(rule.threshold - 0.4) - rule.min_area / 100)
    >>> best.threshold, best.min_area, best.min_score
    (0.4, 8, 0.0)
    """
    grid = GRIDS[type(rule)]
    unused = ("marker_threshold", "min_marker_area") if getattr(rule, "split", "") == "none" else ()
    names = [name for name in grid if name not in unused and name not in held]
    best, best_score = rule, score(rule)
    changed = True
    while changed:
        changed = False
        for name in names:
            kind = type(getattr(rule, name))
            options: list[Any] = [kind(value) for value in grid[name] if value != getattr(best, name)]
            rules: list[R] = [dataclasses.replace(best, **{name: value}) for value in options]
            scores = [score(other) for other in rules]
            top = int(np.argmax(scores))
            if scores[top] > best_score + LEAST_GAIN:
                best, best_score, changed = rules[top], scores[top], True
    return best, best_score

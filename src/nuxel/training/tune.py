"""The decoder's parameters, chosen on validation images: the network runs once, the decoder many times."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuxel.data.dataset import Annotated, read_annotated
from nuxel.decode.clumps import ClumpRule
from nuxel.metrics.average_precision import MatchTally
from nuxel.predict.networks import Network
from nuxel.predict.pipeline import Options, decode_maps, look_at

GRID: Mapping[str, Sequence[float]] = {
    "threshold": (0.35, 0.4, 0.45, 0.5, 0.55, 0.6),
    "marker_threshold": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    "min_marker_area": (2, 4, 8, 16, 24),
    "min_area": (8, 12, 16, 24, 32),
    "min_score": (0.0, 0.5, 0.6, 0.7, 0.75, 0.8),
}
"""Values that are tried. None so large that it would drop what is a nucleus elsewhere."""

LEAST_GAIN = 0.001
"""Gain in mAP below which a parameter stays: a few dozen images cannot tell."""

Score = Callable[[ClumpRule], float]


def tune_decoder(network: Network, annotated: Iterable[Annotated]) -> tuple[ClumpRule, float]:
    """The parameters with the best score on annotated images, starting from those of the network's card.

    Parameters
    ----------
    network
        A network; its card names the decoder's present parameters, of which ``split`` stays.
    annotated
        Images that were not trained on.

    Returns
    -------
    The parameters, and their mean over the images of the Data Science Bowl's mAP.
    """
    cases: list[tuple[NDArray[np.uint8], tuple[int, int], NDArray[np.int32]]] = []
    for item in annotated:
        image, truth = read_annotated(item)
        cases.append((look_at(image, network, Options())[1], (image.shape[0], image.shape[1]), truth))

    def score(rule: ClumpRule) -> float:
        card = dataclasses.replace(network.card, decoder_rule=dataclasses.asdict(rule))
        tally = MatchTally()
        for maps, shape, truth in cases:
            tally.add(truth, decode_maps(maps, shape, card, Options()).labels)
        return tally.mean_average_precision()

    return climb(ClumpRule(**network.card.decoder_rule), score)  # type: ignore[arg-type]


def climb(rule: ClumpRule, score: Score) -> tuple[ClumpRule, float]:
    """Vary one parameter at a time around the best so far, until a whole round over ``GRID`` changes nothing.

    Examples
    --------
    >>> best, _ = climb(ClumpRule(), lambda rule: -abs(rule.threshold - 0.4) - rule.min_area / 100)
    >>> best.threshold, best.min_area, best.min_score
    (0.4, 8, 0.0)
    """
    names = [
        name for name in GRID if rule.split != "none" or name not in ("marker_threshold", "min_marker_area")
    ]
    best, best_score = rule, score(rule)
    changed = True
    while changed:
        changed = False
        for name in names:
            kind = type(getattr(rule, name))
            options: list[Any] = [kind(value) for value in GRID[name] if value != getattr(best, name)]
            rules = [dataclasses.replace(best, **{name: value}) for value in options]
            scores = [score(other) for other in rules]
            top = int(np.argmax(scores))
            if scores[top] > best_score + LEAST_GAIN:
                best, best_score, changed = rules[top], scores[top], True
    return best, best_score

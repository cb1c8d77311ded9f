"""Choose the decoder's parameters of a model on validation images: the network runs once, the decoder many times.

    python benchmarks/tune_decoder.py MODEL.onnx ../shared/data/dsb2018 --index index.csv --where split=val

One parameter is varied at a time around the best so far, in two rounds; printed is the mean over images of the Data
Science Bowl's mAP. The winners go into the recipe's [decoder_rule].
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from nuxel.data.dataset import Source, find_annotated, read_annotated
from nuxel.decode.clumps import ClumpRule
from nuxel.image.resample import ScaledImage
from nuxel.metrics.average_precision import MatchTally
from nuxel.predict.model import Model
from nuxel.predict.pipeline import Options, choose_size, decode_maps, run_network

GRID: dict[str, tuple[float, ...]] = {
    "threshold": (0.35, 0.4, 0.45, 0.5, 0.55, 0.6),
    "marker_threshold": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    "min_marker_area": (2, 8, 16, 24, 32),
    "min_area": (8, 16, 24, 40, 60, 80),
    "min_score": (0.0, 0.6, 0.7, 0.75, 0.8, 0.85),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("folder")
    parser.add_argument("--index")
    parser.add_argument("--where", nargs="*", default=[])
    parser.add_argument("--include", nargs="*", default=["*"])
    options = parser.parse_args()
    where = dict(pair.split("=", 1) for pair in options.where)
    items = find_annotated(Source(options.folder, options.index, where, tuple(options.include)))
    model = Model(options.model)
    cases = []
    for item in items:
        image, truth = read_annotated(item)
        view = ScaledImage(image, choose_size(image, model, Options()).scale)
        cases.append((run_network(view, model), view.full_shape, truth))

    def score(rule: ClumpRule) -> float:
        card = dataclasses.replace(model.card, decoder_rule=dataclasses.asdict(rule))
        tally = MatchTally()
        for maps, shape, truth in cases:
            tally.add(truth, decode_maps(maps, shape, card, Options()).labels)
        return tally.mean_average_precision()

    best = ClumpRule(**model.card.decoder_rule)  # type: ignore[arg-type]
    best_score = score(best)
    print(f"{best_score:.4f} {best}")
    for name in list(GRID) * 2:
        for value in GRID[name]:
            changed: dict[str, Any] = {name: type(getattr(best, name))(value)}
            rule = dataclasses.replace(best, **changed)
            if rule != best and (found := score(rule)) > best_score:
                best, best_score = rule, found
        print(f"{best_score:.4f} after {name}: {best}", flush=True)


if __name__ == "__main__":
    main()

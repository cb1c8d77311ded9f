"""Accuracy of a model file on annotated images, through the whole prediction pipeline.

    python benchmarks/accuracy.py ../shared/data/dsb2018 --index index.csv --where split=test --group modality
    python benchmarks/accuracy.py ../shared/data/tnbc --include '09_*' '10_*' '11_*'
    python benchmarks/accuracy.py ../shared/data/dsb2018 --index index.csv --where split=test --resize 2

Both figures are means over images of the 2018 Data Science Bowl's rule (a match has an IoU strictly greater than
the threshold): mAP over IoU 0.50:0.05:0.95, and AP at 0.5. ``--resize`` enlarges or shrinks images and labels first.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nuxel.data.dataset import Source, find_annotated, read_annotated
from nuxel.image.resample import resize_labels
from nuxel.metrics.average_precision import MatchTally
from nuxel.predict.model import Model, model_path
from nuxel.predict.pipeline import Options, segment_normalised


def main() -> None:
    options = _options()
    where = dict(options.where)
    source = Source(options.folder, options.index, where, tuple(options.include), tuple(options.group))
    model = Model(model_path(options.model))
    rule = {
        **model.card.decoder_rule,
        **{key: _value(text) for key, text in options.decoder},
    }
    model.card = dataclasses.replace(model.card, decoder_rule=rule)
    tallies: dict[str, MatchTally] = defaultdict(MatchTally)
    rows = []
    start = time.perf_counter()
    for item in find_annotated(source):
        image, truth = resized(*read_annotated(item), options.resize)
        if (truth < 0).all():  # nothing is known of it
            continue
        result = segment_normalised(image, model, Options(scale=options.scale, tta=options.tta))
        for group in (item.group, "all"):
            tallies[group].add(truth, result.nuclei.labels)
        counts = tallies["all"].per_image()
        rows.append(
            [item.image.stem, *counts.average_precision[-1, [0]], counts.average_precision[-1].mean()]
        )
        rows[-1] += [
            result.size.diameter,
            result.size.scale,
            true_diameter(truth),
            len(result.nuclei),
            int(truth.max()),
        ]
    for group, tally in sorted(tallies.items()):
        ap50 = tally.per_image().average_precision[:, 0].mean()
        pooled = tally.pooled().average_precision[0]
        mean = tally.mean_average_precision()
        print(
            f"{group:45s} {len(tally):4d} images  mAP {mean:.3f}  AP50 {ap50:.3f}  pooled AP50 {pooled:.3f}"
        )
    print(f"{time.perf_counter() - start:.1f} s")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(rows, file)


def resized(
    image: NDArray[np.uint8], labels: NDArray[np.int32], factor: float
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The pair at another size."""
    if factor == 1:
        return image, labels
    shape = (max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor)))
    picture = Image.fromarray(image).resize(shape[::-1], Image.Resampling.BICUBIC)
    return np.array(picture), resize_labels(labels, shape)


def true_diameter(labels: NDArray[np.int32]) -> float | None:
    """Median diameter of the true nuclei, one vote a pixel."""
    areas = np.bincount(labels[labels > 0])
    return float(np.median(np.sqrt(4 / np.pi * np.repeat(areas, areas)))) if areas.any() else None


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return key, value


def _positive(text: str) -> float:
    if not (value := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--model", default="default")
    parser.add_argument("--index")
    parser.add_argument("--where", nargs="*", type=_pair, default=[], metavar="COLUMN=VALUE")
    parser.add_argument("--include", nargs="*", default=["*"])
    parser.add_argument("--group", nargs="*", default=[])
    parser.add_argument("--resize", type=_positive, default=1.0)
    parser.add_argument("--scale", type=float)
    parser.add_argument("--tta", action="store_true")
    parser.add_argument("--decoder", nargs="*", type=_pair, default=[], metavar="KEY=VALUE")
    parser.add_argument("--json")
    return parser.parse_args()


if __name__ == "__main__":
    main()

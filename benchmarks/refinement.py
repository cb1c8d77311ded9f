"""What US-Net's refinement network adds: the same model with its masks, and with masks cut out of its map instead.

    python benchmarks/refinement.py MODEL.onnx... --study recipes/us_net

Boxes and scores are the same in both, unlike those of two trainings. Decoders are tuned on the study's `tune` images,
one for each, and the one of refined masks for both; scores are of its `test` images. Prints a Markdown table: means
over the images, and the difference, of each model and of the mean of all, with the 95 % interval of a bootstrap over
the images.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nuxel.data.dataset import find_all, read_annotated
from nuxel.decode.detections import Detections
from nuxel.evaluation.scores import score_image
from nuxel.predict.model import Model
from nuxel.predict.pipeline import Options, decode_seen, look_at
from nuxel.systems.us_net import cut
from nuxel.training.study_file import read_study
from nuxel.training.tune import tune_decoder

DECODERS = ("tuned to each", "tuned to refined masks")
SCORES = {"AJI": "aji", "mAP": "ap", "AP50": "ap50"}
RESAMPLES = 5000


class Unrefined(Model):
    """A US-Net without its refinement: masks are cut out of the segmentation branch's map, box by box."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.card = dataclasses.replace(
            self.card, decoder_rule={**(self.card.decoder_rule or {}), "mask_scale": 1.0}
        )

    def detect(self, window: NDArray[np.uint8]) -> Detections:
        boxes, scores, nucleus = self._run(["boxes", "scores", "nucleus"], window)
        masks = cut(torch.from_numpy(nucleus)[None], [torch.from_numpy(boxes[:, [1, 0, 3, 2]])])[:, 0].numpy()
        return Detections(boxes, np.clip(scores, 0, 1), np.clip(masks, 0, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--budget", default="small")
    given = parser.parse_args()
    study = read_study(given.study, given.budget)
    tune, test = find_all(study.file.tune), find_all(study.file.test)
    found: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for path in given.models:
        refined, unrefined = Model(path), Unrefined(path)
        own, others = tune_decoder(refined, tune)[0], tune_decoder(unrefined, tune)[0]
        same = dataclasses.replace(own, mask_scale=1.0)
        (with_it,) = scores(refined, [own], test)
        for how, without in zip(DECODERS, scores(unrefined, [others, same], test), strict=True):
            for name in SCORES:
                found.setdefault((how, name), []).append(np.stack([without[name], with_it[name]]))
    print(
        "| decoder | score | of | without | with | difference | 95 % interval |\n|---|---|---|---|---|---|---|"
    )
    for (how, name), of_models in found.items():
        for path, values in zip(given.models, of_models, strict=True):
            print(line(how, name, path.stem, values))
        print(line(how, name, "all", np.mean(of_models, axis=0)))


def scores(model: Model, rules: Sequence[Any], test: Any) -> list[dict[str, NDArray[np.float64]]]:
    """Scores of the test images by name, with each of the decoder's rules."""
    rows: list[list[Any]] = [[] for _ in rules]
    for item in test:
        image, truth = read_annotated(item)
        seen = look_at(image, model, Options())[1]
        for rule, of_rule in zip(rules, rows, strict=True):
            card = dataclasses.replace(model.card, decoder_rule=dataclasses.asdict(rule))
            labels = decode_seen(seen, (image.shape[0], image.shape[1]), card, Options()).labels
            of_rule.append(score_image(item.image.name, truth, labels).scores)
    return [
        {ours: np.array([row[theirs] for row in of_rule]) for ours, theirs in SCORES.items()}
        for of_rule in rows
    ]


def line(how: str, name: str, of: str, values: NDArray[np.float64]) -> str:
    """One line of the table; ``values`` are ``(2, images)``."""
    gaps = values[1] - values[0]
    drawn = np.random.default_rng(0).integers(0, len(gaps), (RESAMPLES, len(gaps)))
    low, high = np.quantile(gaps[drawn].mean(axis=1), (0.025, 0.975))
    without, refined = values.mean(axis=1)
    return f"| {how} | {name} | {of} | {without:.3f} | {refined:.3f} | {gaps.mean():+.3f} | {low:+.3f} to {high:+.3f} |"


if __name__ == "__main__":
    main()

"""How fast model files are, beside the default model: seconds for each megapixel, from normalised pixels to nuclei.

    python benchmarks/systems.py MODEL.onnx... [--side 1024] [--rounds 3] [--threads N] [--data ../shared/data]

All models segment the same mosaic of real histology images at its own scale, in turn, in one process; the best of the
rounds counts. Prints a Markdown table: seconds a megapixel, and how many times the default model's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from arguments import at_least_one
from nuxel.predict.model import DEFAULT_MODEL, Model, model_path
from nuxel.predict.pipeline import Options, segment_normalised
from segment import best_of, make_mosaic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=at_least_one, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    given = parser.parse_args()
    image = make_mosaic(given.side, given.data)
    paths = [model_path(DEFAULT_MODEL), *given.models]
    models = [Model(path, threads=given.threads) for path in paths]
    options = Options(scale=1.0)
    counts = [len(segment_normalised(image, model, options).nuclei) for model in models]  # and warms up
    rounds = [
        [best_of(1, lambda m=model: segment_normalised(image, m, options)) for model in models]
        for _ in range(given.rounds)
    ]
    seconds = [min(one) for one in zip(*rounds, strict=True)]
    print("| model | system | MB | s / megapixel | times the default | nuclei |\n|---|---|---|---|---|---|")
    for path, model, count, taken in zip(paths, models, counts, seconds, strict=True):
        cells = [
            model.card.title,
            model.card.system,
            f"{path.stat().st_size / 1e6:.1f}",
            f"{taken / (given.side**2 / 1e6):.2f}",
            f"{taken / seconds[0]:.1f}",
            str(count),
        ]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

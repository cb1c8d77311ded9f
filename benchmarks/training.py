"""What a training step costs: parameters, seconds in float32 and in mixed precision, and memory.

    python benchmarks/training.py RECIPE.toml... [--set KEY=VALUE]... [--batch 4] [--crop 256] [--rounds 3]

A step is forward and backward on views of noise with discs for nuclei. Each recipe runs in a process of its own, whose
greatest memory is reported; the two precisions take turns in it, and the best of the rounds counts. Prints a Markdown
table.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.draw import disk

from arguments import at_least_one
from nuxel.training.module import TrainingModule
from nuxel.training.precision import GroupedConvolutionsInFull
from nuxel.training.recipe import read_recipe

DISCS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("recipes", nargs="+", type=Path)
    parser.add_argument(
        "--set", action="append", default=[], help="a change of every recipe, as nuxel train --set"
    )
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--rounds", type=at_least_one, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    print("| recipe | million parameters | s / step, float32 | mixed | times as fast | peak MiB |")
    print("|---|---|---|---|---|---|")
    alone = multiprocessing.get_context("spawn")
    for path in given.recipes:
        with alone.Pool(1) as pool:
            parameters, full, mixed, peak = pool.apply(
                measure, (path, given.set, given.batch, given.crop, given.rounds, given.threads)
            )
        cells = [f"{path.parent.name}/{path.name}", f"{parameters / 1e6:.1f}", f"{full:.2f}", f"{mixed:.2f}"]
        print(f"| {' | '.join(cells)} | {full / mixed:.1f} | {peak:.0f} |", flush=True)


def measure(
    path: Path, changes: list[str], batch: int, crop: int, rounds: int, threads: int
) -> tuple[int, float, float, float]:
    """Number of parameters, seconds in float32 and in mixed precision, and megabytes."""
    torch.set_num_threads(threads)
    recipe = read_recipe(path, changes)
    system, module = recipe.system, TrainingModule(recipe).train()
    rng = np.random.default_rng(0)
    labels = np.stack([discs(crop, rng) for _ in range(batch)])
    images = torch.from_numpy((labels[:, None] > 0) * 0.5 + rng.random((batch, 3, crop, crop)) * 0.3).float()
    images = images.contiguous(memory_format=torch.channels_last)
    targets = torch.from_numpy(np.stack([system.draw_targets(one) for one in labels]))
    annotated = torch.ones(batch, 1, crop, crop)
    best = {False: float("inf"), True: float("inf")}
    for number in range(rounds + 1):  # the first warms up
        for mixed in best:
            start = time.perf_counter()
            with (
                torch.autocast("cpu", torch.bfloat16, enabled=mixed),
                GroupedConvolutionsInFull() if mixed else nullcontext(),
            ):
                losses = system.compute_loss(module.network, images, targets, annotated)
            losses["loss"].backward()
            if number:
                best[mixed] = min(best[mixed], time.perf_counter() - start)
    parameters = sum(values.numel() for values in module.network.parameters())
    return parameters, best[False], best[True], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def discs(side: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """A label image of discs 7 to 25 pixels across, the later on top of the earlier."""
    labels = np.zeros((side, side), np.int32)
    for number in range(1, DISCS + 1):
        rows, columns = disk(tuple(rng.integers(0, side, 2)), rng.integers(4, 14), shape=labels.shape)
        labels[rows, columns] = number
    return labels


if __name__ == "__main__":
    main()

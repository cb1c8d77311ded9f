"""How fast the metrics are, and how much memory they need.

    python benchmarks/metrics.py compare [--stardist PATH/TO/stardist/matching.py]
    python benchmarks/metrics.py slide [--nuclei 1000000] [--folder DIR]

``compare`` measures all overlap metrics on 4096 x 4096 pixels against StarDist's ``matching`` for ten
thresholds (or a transcription of it where the file is not given). ``slide`` writes a pair of chunked,
compressed label TIFFs, 32 x 32 pixels a nucleus, and measures them band by band; the peak memory
before that is printed, too.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import resource
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import tifffile
from scipy.optimize import linear_sum_assignment
from skimage.draw import ellipse

from arguments import at_least_one
from nuxel.metrics.aggregated_jaccard import aggregated_jaccard, aggregated_jaccard_plus, normalised_coverage
from nuxel.metrics.average_precision import match_counts
from nuxel.metrics.dice import dice, ensemble_dice, object_dice
from nuxel.metrics.error_classes import error_classes
from nuxel.metrics.hausdorff import hausdorff_distances
from nuxel.metrics.matching import iou_at_least
from nuxel.metrics.overlap import OverlapTable, count_overlaps, overlap_table
from nuxel.metrics.panoptic_quality import panoptic_quality
from nuxel.metrics.pixels import count_error, mean_iou, pixel_accuracy

PITCH = 32
BLOCK = 96 * PITCH
BAND = 512
SLIDE_WIDTH = 10 * BLOCK
OVERLAP_METRICS = (
    match_counts,
    panoptic_quality,
    aggregated_jaccard,
    aggregated_jaccard_plus,
    normalised_coverage,
    dice,
    ensemble_dice,
    object_dice,
    error_classes,
    pixel_accuracy,
    mean_iou,
    count_error,
)
THRESHOLDS = [step / 20 for step in range(10, 20)]


def scene(nuclei: int, size: int, seed: int) -> np.ndarray:
    """A square label image: one ellipse a grid cell, jittered so that other seeds overlap its neighbours."""
    rng = np.random.default_rng(seed)
    image = np.zeros((size, size), np.int32)
    across = int(np.ceil(nuclei**0.5))
    pitch = size / across
    for label in range(1, nuclei + 1):
        cell = np.array(divmod(label - 1, across)) + 0.5
        y, x = (cell + rng.normal(scale=0.05, size=2)) * pitch
        radius = pitch * rng.uniform(0.38, 0.55)
        inside = ellipse(
            y, x, radius, radius * rng.uniform(0.8, 1), shape=image.shape, rotation=rng.uniform(0, 3)
        )
        image[inside] = label
    return image


def best_time(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def all_metrics(table: OverlapTable) -> None:
    for metric in OVERLAP_METRICS:
        metric(table)


def dense_matching(truth: np.ndarray, predicted: np.ndarray, thresh: list[float]) -> list[int]:
    """True positives at each threshold by StarDist's definition: dense, with one assignment a threshold."""
    pairs = np.zeros((truth.max() + 1, predicted.max() + 1), np.int64)
    np.add.at(pairs, (truth.ravel(), predicted.ravel()), 1)
    union = pairs.sum(axis=1, keepdims=True) + pairs.sum(axis=0, keepdims=True) - pairs
    iou = (pairs / np.maximum(union, 1))[1:, 1:]
    found = []
    for threshold in thresh:
        rows, columns = linear_sum_assignment(-(iou >= threshold).astype(float) - iou / (2 * min(iou.shape)))
        found.append(int((iou[rows, columns] >= threshold).sum()))
    return found


def stardist_matching(path: Path) -> Callable[[np.ndarray, np.ndarray, list[float]], list[int]]:
    """``stardist.matching.matching`` from its source file, without what StarDist needs for training."""
    stand_in = types.ModuleType("csbdeep.utils")
    stand_in.__dict__["_raise"] = None
    sys.modules |= {"csbdeep": types.ModuleType("csbdeep"), "csbdeep.utils": stand_in}
    spec = importlib.util.spec_from_file_location("stardist_matching", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda truth, predicted, thresh: [m.tp for m in module.matching(truth, predicted, thresh)]


def compare(stardist: Path | None) -> None:
    peer = stardist_matching(stardist) if stardist else dense_matching
    peer(np.eye(4, dtype=np.int32), np.eye(4, dtype=np.int32), THRESHOLDS)  # compiles StarDist's loop
    truth, predicted = scene(5000, 4096, 0), scene(5000, 4096, 1)
    ours = best_time(lambda: all_metrics(overlap_table(truth, predicted)), 5)
    expected = peer(truth, predicted, THRESHOLDS)
    theirs = best_time(lambda: peer(truth, predicted, THRESHOLDS), 2)
    found = match_counts(truth, predicted, THRESHOLDS, iou_at_least).true_positives.tolist()
    name = "stardist" if stardist else "transcription"
    print(f"5,000 nuclei: all {len(OVERLAP_METRICS)} metrics {ours:.3f} s")
    print(f"  {name}, ten thresholds {theirs:.2f} s: {theirs / ours:.0f} x")
    print(f"  same true positives: {found == expected} {found}")
    for nuclei in (5000, 20_000):
        truth, predicted = scene(nuclei, 4096, 0), scene(nuclei, 4096, 1)
        counting = best_time(partial(overlap_table, truth, predicted), 5)
        table = overlap_table(truth, predicted)
        metrics = best_time(lambda: all_metrics(dataclasses.replace(table)), 5)  # noqa: B023
        print(f"{nuclei:,} nuclei: overlaps {counting:.3f} s, all metrics {metrics:.3f} s more: ", end="")
        print(f"{(counting + metrics) / counting:.2f} x")
    hausdorff = best_time(lambda: hausdorff_distances(truth, predicted), 1)
    print(f"Hausdorff distances of 20,000 nuclei: {hausdorff:.1f} s")


def rows_of_blocks(block: np.ndarray, height: int) -> Iterator[np.ndarray]:
    """A slide of ``height`` rows made of one block repeated, each copy with labels of its own."""
    each = int(block.max())
    across = SLIDE_WIDTH // BLOCK
    for top in range(0, height, BAND):
        rows = block[top % BLOCK :][:BAND]
        offsets = (np.arange(across) + top // BLOCK * across) * each
        yield np.hstack([np.where(rows > 0, rows + np.int32(offset), 0) for offset in offsets])


def write_slide(path: Path, seed: int, height: int) -> None:
    block = scene((BLOCK // PITCH) ** 2, BLOCK, seed)
    tifffile.imwrite(
        path,
        rows_of_blocks(block, height),
        shape=(height, SLIDE_WIDTH),
        dtype=np.int32,
        tile=(BAND, SLIDE_WIDTH),
        compression="zlib",
        compressionargs={"level": 1},
        bigtiff=True,
    )


def bands(path: Path) -> Iterator[np.ndarray]:
    with tifffile.TiffFile(path) as file:
        for band, _, _ in file.pages[0].segments(maxworkers=1):
            yield band[0, :, :, 0]


def slide(nuclei: int, folder: Path) -> None:
    height = -(-nuclei * PITCH * PITCH // SLIDE_WIDTH // BLOCK) * BLOCK
    paths = [folder / f"{name}.tif" for name in ("truth", "predicted")]
    for seed, path in enumerate(paths):
        write_slide(path, seed, height)
    written = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start = time.process_time()
    for _ in zip(*map(bands, paths), strict=True):
        pass
    reading = time.process_time() - start
    start = time.process_time()
    table = count_overlaps(zip(*map(bands, paths), strict=True))
    counted = time.process_time() - start
    all_metrics(table)
    total = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(table.truth_labels):,} nuclei, {SLIDE_WIDTH:,} x {height:,} pixels")
    print(f"  processor time: reading {reading:.1f} s; overlaps {counted:.1f} s; all metrics {total:.1f} s")
    print("  (each includes those before it)")
    print(f"  peak memory {peak:.2f} GiB ({written:.2f} after writing the files)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("compare").add_argument("--stardist", type=Path)
    big = verbs.add_parser("slide")
    big.add_argument("--nuclei", type=at_least_one, default=1_000_000)
    big.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.verb == "compare":
        compare(options.stardist)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        slide(options.nuclei, Path(folder))


if __name__ == "__main__":
    main()

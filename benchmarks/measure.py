"""How fast one image is measured and written, and how much memory that takes.

    python benchmarks/measure.py [--side 1024] [--nuclei 500]

Draws ellipses on a noisy RGB image, then measures them and writes the overlay, the label TIFF and the table.
Prints the best of five processor times, which other work on the machine hardly changes, and the peak of
memory that Python allocated beyond the image and its labels.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.draw import ellipse

from arguments import at_least_one
from nuxel.export.label_tiff import write_labels
from nuxel.export.overlay import write_overlay
from nuxel.export.table import write_table
from nuxel.instances import Instances
from nuxel.labels.relabel import relabel
from nuxel.measure.nuclei import measure_nuclei

CHANNELS = ("red", "green", "blue")
ROUNDS = 5


def draw_scene(side: int, count: int) -> tuple[NDArray[np.uint8], Instances]:
    """An RGB image of smooth noise, and about ``count`` ellipses on a jittered grid."""
    rng = np.random.default_rng(0)
    labels = np.zeros((side, side), np.int32)
    per_row = int(np.ceil(np.sqrt(count)))
    pitch = side / per_row
    for number in range(count):
        centre = (np.array(divmod(number, per_row)) + 0.5) * pitch + rng.uniform(-0.1, 0.1, 2) * pitch
        radii = rng.uniform(0.2, 0.4, 2) * pitch
        labels[ellipse(*centre, *radii, shape=labels.shape, rotation=rng.uniform(0, np.pi))] = number + 1
    noise = rng.normal(0, 6, (side, side, 3)).astype(np.float32)
    shade = np.where(labels > 0, np.float32(90), np.float32(200))[..., None]
    return (shade + noise).astype(np.uint8), Instances(relabel(labels))


def best_time(work: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def peak_memory(work: Callable[[], object]) -> float:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=1024, help="pixels a side")
    parser.add_argument("--nuclei", type=at_least_one, default=500)
    options = parser.parse_args()
    pixels, nuclei = draw_scene(options.side, options.nuclei)
    table = measure_nuclei(nuclei, pixels, channel_names=CHANNELS, pixel_size_um=0.25)
    print(
        f"{options.side} x {options.side} RGB, {len(nuclei)} nuclei, {(nuclei.labels > 0).mean():.0%} covered"
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        works: dict[str, Callable[[], object]] = {
            "measure": lambda: measure_nuclei(nuclei, pixels, channel_names=CHANNELS, pixel_size_um=0.25),
            "overlay": lambda: write_overlay(out / "overlay.png", pixels, nuclei),
            "labels": lambda: write_labels(out / "labels.tif", nuclei.labels, 0.25),
            "table": lambda: write_table(out / "nuclei.csv", table),
        }
        for name, work in works.items():
            print(f"{name:8} {best_time(work):8.1f} ms {peak_memory(work):8.1f} MiB")


if __name__ == "__main__":
    main()

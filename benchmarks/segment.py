"""How fast ``nuxel segment`` is, stage by stage and in total, how much memory it takes, and how fast it starts.

    python benchmarks/segment.py [--sides 256 512 1024 2048 4096] [--rounds 3] [--threads N] [--data ../shared/data]

Images are mosaics of real histology images of the test split. Prints Markdown tables; all times are wall-clock seconds,
the best of the rounds, in one warm process (but for memory and cold start), so let nothing else run beside it.
*Network* is the time inside the network for the tiles of the image, halo included; *total* is `segment_files`, from
reading to the last product, which saves what the stages alone do twice and writes several products at once. The
reference network needs the training half.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from arguments import at_least_one
from nuxel.export.label_tiff import write_labels
from nuxel.export.overlay import write_overlay
from nuxel.export.table import write_table
from nuxel.image.normalise import normalise
from nuxel.image.read import read_image
from nuxel.image.resample import ScaledImage
from nuxel.measure.nuclei import measure_nuclei
from nuxel.predict.files import Job, segment_files
from nuxel.predict.model import DEFAULT_MODEL, Model, model_path
from nuxel.predict.pipeline import Options, choose_size, decode_maps, run_network, segment_normalised
from nuxel.tiling.grid import Box

STAGES = ("read", "normalise", "size", "network", "tiles", "decode", "measure", "export")
REFERENCE_SIDE = 1024
FLOPS_SIDE = 256
MODALITY = "histology_purple_on_purple"

PEAK = """
import sys
from pathlib import Path
from nuxel.predict.files import Job, segment_files
from nuxel.predict.model import Model
model = Model(sys.argv[2], threads=int(sys.argv[4]), device="cpu")
segment_files([sys.argv[1]], Job(model, Path(sys.argv[3])))
# not getrusage: Linux lets a child inherit its parent's peak
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


class TimedModel:
    """A model that adds up the time spent in it."""

    def __init__(self, model: Model) -> None:
        self.card = model.card
        self.seconds = 0.0
        self._model = model

    def __call__(self, window: NDArray[np.uint8], inner: Box | None = None) -> NDArray[np.float32]:
        start = time.perf_counter()
        maps = self._model(window, inner)
        self.seconds += time.perf_counter() - start
        return maps


def make_mosaic(side: int, data: Path) -> NDArray[np.uint8]:
    """``(side, side, 3)`` uint8: images of one modality of the test split side by side, again and again."""
    with (data / "dsb2018" / "index.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["split"], row["modality"]) == ("test", MODALITY)]
    images = [
        np.asarray(Image.open(data / "dsb2018" / "images" / f"{row['id']}.png").convert("RGB"))
        for row in rows
    ]
    height, width = images[0].shape[:2]
    mosaic = np.empty((side, side, 3), np.uint8)
    corners = [(y, x) for y in range(0, side, height) for x in range(0, side, width)]
    for number, (y, x) in enumerate(corners):
        place = mosaic[y : y + height, x : x + width]
        place[:] = images[number % len(images)][: place.shape[0], : place.shape[1]]
    return mosaic


def time_stages(path: Path, model: Model, out: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds of each stage of one image, and what was found."""
    seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] += time.perf_counter() - start

    with stage("read"):
        image = read_image(path)
    with stage("normalise"):
        display = normalise(image.pixels)
    with stage("size"):
        size = choose_size(display, model, Options())
    timed = TimedModel(model)
    with stage("tiles"):
        view = ScaledImage(display, size.scale)
        maps = run_network(view, timed, Options())
    seconds["network"] = timed.seconds
    seconds["tiles"] -= timed.seconds
    with stage("decode"):
        nuclei = decode_maps(maps, view.full_shape, model.card, Options())
    with stage("measure"):
        table = measure_nuclei(nuclei, image.pixels, channel_names=image.channel_names)
    with stage("export"):
        write_table(out / "a.csv", table)
        write_overlay(out / "a.png", display, nuclei)
        write_labels(out / "a.tif", nuclei.labels)
    return dict(seconds), {"nuclei": len(nuclei), "scale": size.scale}


def best_of(rounds: int, action: Callable[[], Any]) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def stage_table(paths: dict[int, Path], model: Model, out: Path, rounds: int) -> dict[int, float]:
    """Print the times of each size and return the totals."""
    totals = {}
    print(f"\n| side | {' | '.join(STAGES)} | total | total / network | rest | nuclei | scale |")
    print("|" + "---|" * (len(STAGES) + 6))
    for side, path in paths.items():
        job = Job(model, out, overwrite=True)
        runs, found = [], {}
        for _ in range(rounds):
            seconds, found = time_stages(path, model, out)
            runs.append(seconds)
        best = {name: min(run[name] for run in runs) for name in STAGES}
        totals[side] = best_of(rounds, lambda path=path, job=job: segment_files([path], job))
        numbers = " | ".join(f"{best[name]:.4f}" for name in STAGES)
        print(
            f"| {side} | {numbers} | {totals[side]:.3f} | {totals[side] / best['network']:.2f} "
            f"| {totals[side] - best['network']:.3f} | {found['nuclei']} | {found['scale']:.2f} |",
            flush=True,
        )
    return totals


def pixel_rates(totals: dict[int, float]) -> None:
    print("\n| side | seconds per megapixel | megapixels per second |")
    print("|---|---|---|")
    rates = {side: total / side**2 * 1e6 for side, total in totals.items()}
    for side, rate in rates.items():
        print(f"| {side} | {rate:.3f} | {1 / rate:.3f} |")
    if {1024, 4096} <= set(rates):
        print(f"\nTime per pixel at 4096 px over that at 1024 px: {rates[4096] / rates[1024]:.2f}")


def compare_with_reference(model: Model, rounds: int) -> None:
    """Megapixels per second of the network and of mobilenet_v3_large on the same input."""
    window = np.random.default_rng(0).integers(0, 256, (REFERENCE_SIDE, REFERENCE_SIDE, 3), np.uint8)
    megapixels = window.size / 3e6
    ours = megapixels / best_of(rounds, lambda: model(window))
    print(f"\nNetwork alone at {REFERENCE_SIDE} px: {ours:.3f} megapixels per second")
    if find_spec("onnx"):
        print(
            f"Network: {flops_per_pixel(model.path):,.0f} FLOPs per pixel (two per multiply-add of a convolution)"
        )
    if not find_spec("torchvision"):
        print("Reference network: not measured (the training half is not installed)")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = export_reference(Path(folder) / "reference.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = model.threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        batch = window.transpose(2, 0, 1)[None].astype(np.float32) / 255
        session.run(None, {"image": batch})
        reference = megapixels / best_of(rounds, lambda: session.run(None, {"image": batch}))
        flops = flops_per_pixel(path)
    print(f"mobilenet_v3_large: {reference:.3f} megapixels per second, {flops:,.0f} FLOPs per pixel")


def export_reference(path: Path) -> Path:
    import torch
    from torchvision.models import mobilenet_v3_large

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = torch.zeros(1, 3, FLOPS_SIDE, FLOPS_SIDE)
        network = mobilenet_v3_large(weights=None).eval()
        torch.onnx.export(
            network,
            (image,),
            path,
            input_names=["image"],
            dynamic_axes={"image": {2: "height", 3: "width"}},
            opset_version=17,
            dynamo=False,
        )
    return path


def flops_per_pixel(path: Path) -> float:
    """Of all convolutions, for one pixel of a square input; their sizes are seen by running the graph once."""
    import onnx

    model = onnx.load(path)
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    # a weight that is stored as 16-bit floats is read through a node that widens it
    casts = [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in weights]
    weights |= {node.output[0]: weights[node.input[0]] for node in casts}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in convolutions)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs = session.run(None, {"image": np.zeros((1, 3, FLOPS_SIDE, FLOPS_SIDE), np.float32)})
    # each weight meets every position of the output once: one multiplication and one addition
    counts = [
        2.0 * np.prod(weights[node.input[1]], dtype=float) * output[0, 0].size
        for node, output in zip(convolutions, outputs, strict=True)
    ]
    return float(np.sum(counts)) / FLOPS_SIDE**2


def measure_peak(path: Path, model: Model, out: Path) -> float:
    """Greatest memory of a process that segments one image, in GB (Linux)."""
    command = [sys.executable, "-c", PEAK, path, model.path, out, str(model.threads)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure nuxel segment.")
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--rounds", type=at_least_one, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    given = parser.parse_args()
    model = Model(model_path(given.model), threads=given.threads, device="cpu")
    print(f"{model.card.title}, {model.path.stat().st_size / 1e6:.1f} MB, {model.threads} threads")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        out.mkdir()
        paths = {side: Path(folder) / f"{side}.png" for side in given.sides}
        for side, path in paths.items():
            Image.fromarray(make_mosaic(side, given.data)).save(path)
        segment_normalised(np.zeros((256, 256, 3), np.uint8), model, Options())  # the first run is slower
        totals = stage_table(paths, model, out, given.rounds)
        pixel_rates(totals)
        compare_with_reference(model, given.rounds)
        smallest, largest = min(paths), max(paths)
        peak = measure_peak(paths[largest], model, out / "peak")
        print(f"\nPeak memory of one {largest} px RGB image: {peak:.2f} GB")
        command = [sys.executable, "-m", "nuxel", "segment", paths[smallest], "--out", out / "cold"]
        command += ["--model", model.path, "--threads", str(model.threads), "--device", "cpu"]
        cold = best_of(
            given.rounds, lambda: subprocess.run([*command, "--overwrite"], check=True, capture_output=True)
        )
        print(f"Cold start to finished result on one {smallest} px image: {cold:.2f} s")


if __name__ == "__main__":
    main()

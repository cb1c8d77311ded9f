"""``nuxel segment INPUT... --out DIR``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image files, folders or patterns")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME|FILE",
        help="a shipped model or a model file (default: default); given several times, their answers are averaged",
    )
    parser.add_argument(
        "--channel", type=_name_or_index, metavar="NAME|N", help="channel that shows the nuclei"
    )
    parser.add_argument("--z", type=_z, metavar="N|max", help="plane of a z-stack, or its maximum projection")
    parser.add_argument("--t", type=int, metavar="N", help="time point")
    parser.add_argument(
        "--pixel-size", type=float, metavar="UM", help="micrometres per pixel, where the file is silent"
    )
    parser.add_argument(
        "--scale", type=float, metavar="X", help="run the network at this scale (default: estimated)"
    )
    parser.add_argument(
        "--diameter", type=float, metavar="PX", help="diameter of the nuclei (default: estimated)"
    )
    parser.add_argument("--threshold", type=float, metavar="X", help="least nucleus probability, 0 to 1")
    parser.add_argument(
        "--min-area", type=int, metavar="PX", help="drop smaller nuclei, in place of what the model drops"
    )
    parser.add_argument("--tile-size", type=int, metavar="N", help="side of a tile in pixels")
    parser.add_argument("--threads", type=int, metavar="N", help="processors to use (default: all available)")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the network runs"
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="average eight turned and mirrored views: better, and eight times the work",
    )
    parser.add_argument(
        "--format",
        action="append",
        default=[],
        choices=("run-length",),
        help="write also: run-length (run_lengths.csv of the 2018 Data Science Bowl)",
    )
    parser.add_argument(
        "--save-attention",
        action="store_true",
        help="draw the attention coefficients over each image, where the model has them",
    )
    parser.add_argument(
        "--attention-level", type=int, default=4, metavar="N", help="of pyramid level PN (default: 4)"
    )
    parser.add_argument("--overwrite", action="store_true", help="do again what is already done")


def run(options: argparse.Namespace) -> int:
    from nuxel.cli.progress import progress_bar
    from nuxel.predict.files import Job, Reading, segment_files
    from nuxel.predict.model import DEFAULT_MODEL, model_path, open_models
    from nuxel.predict.pipeline import Options

    chosen = Options(
        threshold=options.threshold,
        min_area=options.min_area,
        scale=options.scale,
        diameter=options.diameter,
        tile_size=options.tile_size,
        tta=options.tta,
    )
    reading = Reading(options.channel, options.z, options.t, options.pixel_size)
    paths = [model_path(name) for name in options.model or [DEFAULT_MODEL]]
    model = open_models(paths, threads=options.threads, device=options.device)
    attention = options.attention_level if options.save_attention else None
    job = Job(model, options.out, chosen, reading, options.overwrite, tuple(options.format), attention)
    with progress_bar("segment") as advance:
        rows = segment_files(options.inputs, job, advance)
    failed, skipped = (sum(row.status == status for row in rows) for status in ("failed", "skipped"))
    nuclei = sum(row.nuclei or 0 for row in rows)
    done = len(rows) - failed - skipped
    print(
        f"{done} done, {skipped} skipped, {failed} failed; {nuclei} nuclei; see {options.out}",
        file=sys.stderr,
    )
    return 1 if failed else 0


def _name_or_index(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


def _z(text: str) -> str | int:
    if text == "max" or text.isdecimal():
        return "max" if text == "max" else int(text)
    raise argparse.ArgumentTypeError(f"expected a plane's number or max, got {text}")

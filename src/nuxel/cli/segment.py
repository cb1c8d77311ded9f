"""``nuxel segment INPUT... --out DIR``."""

from __future__ import annotations

import argparse
import sys

from nuxel.cli.shared import (
    add_finding,
    add_reading,
    add_running,
    finding_of,
    path_given,
    reading_of,
    tidy_end,
)
from nuxel.errors import UsageError

_LEVEL = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image files, folders or patterns")
    parser.add_argument("--out", required=True, type=path_given, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME|FILE",
        help="a shipped model or a model file (default: default); given several times, their answers are averaged",
    )
    add_reading(parser)
    add_finding(parser)
    parser.add_argument(
        "--tile-size", type=int, metavar="N", help="side of a tile in pixels (default: as memory allows)"
    )
    add_running(parser)
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
        "--attention-level", type=int, metavar="N", help=f"of pyramid level PN (default: {_LEVEL})"
    )
    parser.add_argument("--overwrite", action="store_true", help="do again what is already done")


def run(options: argparse.Namespace) -> int:
    from nuxel.cli.progress import progress_bar
    from nuxel.predict.files import Job, segment_files
    from nuxel.predict.model import DEFAULT_MODEL, model_path, open_models

    if options.attention_level is not None and not options.save_attention:
        raise UsageError("--attention-level chooses what --save-attention draws; give both")
    chosen = finding_of(options, tile_size=options.tile_size, tta=options.tta)
    paths = [model_path(name) for name in options.model or [DEFAULT_MODEL]]
    model = open_models(paths, threads=options.threads, device=options.device)
    level = _LEVEL if options.attention_level is None else options.attention_level
    job = Job(
        model,
        options.out,
        chosen,
        reading_of(options),
        options.overwrite,
        tuple(options.format),
        level if options.save_attention else None,
    )
    with tidy_end(), progress_bar("segment") as advance:
        rows = segment_files(options.inputs, job, advance)
    failed, skipped = (sum(row.status == status for row in rows) for status in ("failed", "skipped"))
    nuclei = sum(row.nuclei or 0 for row in rows)
    done = len(rows) - failed - skipped
    print(
        f"{done} done, {skipped} skipped, {failed} failed; {nuclei} nuclei; see {options.out}",
        file=sys.stderr,
    )
    return 1 if failed else 0

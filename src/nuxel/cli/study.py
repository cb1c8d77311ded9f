"""``nuxel study FOLDER``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nuxel.cli.shared import path_given, require_training, warnings_told
from nuxel.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=path_given, metavar="FOLDER", help="holds study.toml and the recipes that it names"
    )
    parser.add_argument(
        "--budget",
        default="small",
        metavar="NAME",
        help="one of those that study.toml names (default: small)",
    )
    parser.add_argument(
        "--out",
        type=path_given,
        metavar="DIR",
        help="folder of the results (default: runs/ and FOLDER's name)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="seeds that each row has at least (default 1); 0 only prints the tables",
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help="run these rows only")
    parser.add_argument(
        "--data",
        type=path_given,
        metavar="FOLDER",
        help="annotated images, in place of the folder that the recipes name",
    )


def run(options: argparse.Namespace) -> int:
    if options.seeds < 0:
        raise UsageError(f"--seeds must not be negative, got {options.seeds}")
    require_training()
    from nuxel.training.study import run_study
    from nuxel.training.study_file import read_study
    from nuxel.training.study_page import write_page

    study = read_study(options.folder, options.budget, options.data and str(options.data))
    out = options.out or Path("runs") / options.folder.resolve().name
    with warnings_told(_tell):
        failed = run_study(study, out, seeds=options.seeds, only=options.only, tell=_tell)
    print(write_page(study, out, failed), end="")
    return 1 if failed else 0


def _tell(sentence: str) -> None:
    print(f"nuxel study: {sentence}", file=sys.stderr, flush=True)

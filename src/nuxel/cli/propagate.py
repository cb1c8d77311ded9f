"""``nuxel propagate RUN|MODEL IMAGES --annotations DIR --out DIR``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nuxel.cli.shared import (
    add_finding,
    add_reading,
    add_running,
    finding_of,
    path_given,
    reading_of,
    require_training,
    tidy_end,
)
from nuxel.errors import UsageError
from nuxel.names import RUN_RECIPE

if TYPE_CHECKING:
    from nuxel.predict.networks import Detector, Network


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="RUN|MODEL", help="a run folder, a model file or a shipped model")
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="image files, folders or patterns")
    parser.add_argument(
        "--annotations",
        required=True,
        type=path_given,
        metavar="DIR",
        help="label images or outlines named like the images (or the one file of one image); negative numbers are "
        "not annotated",
    )
    parser.add_argument("--out", required=True, type=path_given, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--partial", action="store_true", help="in the annotations 0 means not annotated, too"
    )
    parser.add_argument(
        "--complete",
        action="store_true",
        help="what is neither annotated nor proposed is background (0), not unknown (-1)",
    )
    parser.add_argument("--truth", type=path_given, metavar="DIR", help="full label images, for the pictures")
    add_reading(parser)
    add_finding(parser)
    add_running(parser)
    parser.add_argument(
        "--tolerance", type=float, default=1.0, metavar="PX", help="of the outlines as splines (default: 1)"
    )


def run(options: argparse.Namespace) -> int:
    from nuxel.annotate.files import Propagation, propagate_files
    from nuxel.annotate.tasks import find_tasks
    from nuxel.cli.progress import progress_bar

    given, out = options.annotations.resolve(), options.out.resolve()
    if given in (out, *out.parents):
        raise UsageError(
            f"{options.out}: lies in the folder of the annotations, and would be taken for some next time; "
            "choose another"
        )
    tasks, left = find_tasks(options.images, options.annotations, options.truth)
    if left:
        print(f"nuxel propagate: {left} annotations belong to none of the images", file=sys.stderr)
    how = Propagation(
        _network(options),
        options.out,
        finding_of(options),
        options.partial,
        options.tolerance,
        options.complete,
        reading_of(options),
    )
    with tidy_end(), progress_bar("propagate") as advance:
        rows = propagate_files(tasks, how, advance)
    failed = sum(row.status == "failed" for row in rows)
    human, proposed = (sum(getattr(row, name) or 0 for row in rows) for name in ("human", "proposed"))
    print(
        f"{len(rows) - failed} done, {failed} failed; {human} nuclei annotated, {proposed} proposed; "
        f"see {options.out}",
        file=sys.stderr,
    )
    return 1 if failed else 0


def _network(options: argparse.Namespace) -> Network | Detector:
    name = options.model
    if Path(name).is_dir():
        if not (Path(name) / RUN_RECIPE).is_file():
            raise UsageError(
                f"{name}: is no training run; give a run, a model file or the name of a shipped model"
            )
        if options.device == "cuda":
            raise UsageError(f"{name}: a run folder runs on the processor; export it for --device cuda")
        require_training("a run folder (a model file does not)")
        import torch

        from nuxel.predict.cpu import available_cpus
        from nuxel.predict.model import checked_threads
        from nuxel.training.export import load_run
        from nuxel.training.validate import TorchNetwork

        torch.set_num_threads(checked_threads(options.threads) or available_cpus())
        module = load_run(Path(name))
        return TorchNetwork(module, module.card)
    from nuxel.predict.model import Model, model_path

    return Model(model_path(name), threads=options.threads, device=options.device)

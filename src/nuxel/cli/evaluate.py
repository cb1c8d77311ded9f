"""``nuxel evaluate PREDICTED TRUTH``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from nuxel.cli.shared import path_given
from nuxel.errors import UsageError

if TYPE_CHECKING:
    from nuxel.evaluation.evaluate import Evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "predicted",
        type=path_given,
        metavar="PREDICTED",
        help="output folder of nuxel segment, folder of label images, run-length CSV, or one label image",
    )
    parser.add_argument(
        "truth", type=path_given, metavar="TRUTH", help="the same of the truth, or folders of masks"
    )
    parser.add_argument(
        "--compare", type=path_given, metavar="OTHER", help="second prediction, to put beside the first"
    )
    parser.add_argument(
        "--index", type=path_given, metavar="CSV", help="groups of the images, by a column id or ImageId"
    )
    parser.add_argument(
        "--group",
        action="append",
        default=[],
        metavar="COLUMN",
        help="column of the index to group by (repeatable)",
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        type=_column_and_value,
        metavar="COLUMN=VALUE",
        help="only images with this value in the index (repeatable)",
    )
    parser.add_argument(
        "--iou",
        type=float,
        default=0.5,
        metavar="X",
        help="IoU above which a nucleus is found (default: 0.5)",
    )
    parser.add_argument("--hausdorff", action="store_true", help="measure Hausdorff distances too (slow)")
    parser.add_argument(
        "--boxes", action="store_true", help="VOC and COCO average precision of scored boxes too"
    )
    parser.add_argument("--allow-missing", action="store_true", help="count a missing prediction as empty")
    parser.add_argument("--json", type=path_given, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--csv", type=path_given, metavar="FILE", help="write one row an image as CSV")
    parser.add_argument(
        "--report", type=path_given, metavar="FILE.html", help="write a page with charts and pictures"
    )
    parser.add_argument(
        "--images", type=path_given, metavar="DIR", help="images for the pictures of the report"
    )


def run(options: argparse.Namespace) -> int:
    from nuxel.evaluation.compare import compare
    from nuxel.evaluation.tables import as_text, comparison_as_text, write_csv, write_json

    for name in ("json", "csv", "report"):
        if given := getattr(options, name):  # of a link, the file that it stands for
            setattr(options, name, Path(os.path.realpath(given)))
    _refuse_bad_outputs(options)
    if options.report:
        from nuxel.evaluation.charts import need_plotting

        need_plotting()
    first = _evaluated(options, options.predicted)
    second = _evaluated(options, options.compare) if options.compare else None
    comparison = compare(first, second) if second else None
    if options.json:
        write_json(options.json, first, comparison)
    if options.csv:
        write_csv(options.csv, first)
    if options.report:
        from nuxel.evaluation.report import write_report

        write_report(options.report, first, comparison, options.images)
    # last, since whoever reads it may stop before its end
    print(as_text(first))
    if second and comparison:
        print(f"\n{options.compare}\n{as_text(second)}")
        print("\n" + comparison_as_text(comparison, str(options.predicted), str(options.compare)))
    return 0


def _evaluated(options: argparse.Namespace, predicted: Path) -> Evaluation:
    from nuxel.cli.progress import progress_bar
    from nuxel.evaluation.evaluate import evaluate

    with progress_bar("evaluate") as advance:
        return evaluate(
            predicted,
            options.truth,
            index=options.index,
            progress=lambda done, total, _: advance(done, total, None),
            iou=options.iou,
            hausdorff=options.hausdorff,
            boxes=options.boxes,
            allow_missing=options.allow_missing,
            where=dict(options.where),
            group=options.group,
        )


def _refuse_bad_outputs(options: argparse.Namespace) -> None:
    """Before minutes of work, not after."""
    from nuxel.data.outlines import OUTLINE_SUFFIXES
    from nuxel.export.own import is_record
    from nuxel.image.find import find_images
    from nuxel.labels.read import LABEL_SUFFIXES
    from nuxel.names import TABLE_END

    outputs = [path for path in (options.json, options.csv, options.report) if path]
    inputs = {
        path.resolve() for path in (options.predicted, options.truth, options.compare, options.index) if path
    }
    for path in outputs:
        if not path.parent.is_dir() or path.is_dir():
            raise UsageError(f"{path}: cannot be written there; name a file in a folder that exists")
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: is no regular file; name one that is, or that is not there yet")
        kept = path.exists() and path.name.lower().endswith((*LABEL_SUFFIXES, *OUTLINE_SUFFIXES, TABLE_END))
        if path in inputs or kept or is_record(path):
            raise UsageError(
                f"{path}: is among what is read, or may be, and would be replaced; name another file"
            )
    if len(set(outputs)) < len(outputs):
        raise UsageError(f"{outputs[0]}: --json, --csv and --report need a file each")
    if options.images and not options.images.is_dir():
        raise UsageError(f"{options.images}: there is no such folder of images")
    if options.images:
        find_images([options.images])
    if options.images and not options.report:
        raise UsageError("--images only serves the pictures of a report: add --report FILE.html")


def _column_and_value(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not column or not equals:
        raise argparse.ArgumentTypeError(f"expected COLUMN=VALUE, got {text}")
    return column, value

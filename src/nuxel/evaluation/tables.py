"""An evaluation as text for people, and as JSON and CSV for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nuxel import __version__
from nuxel.evaluation.compare import Comparison
from nuxel.evaluation.evaluate import Evaluation
from nuxel.evaluation.scores import HAUSDORFF, ImageScores
from nuxel.evaluation.summary import Summary
from nuxel.export.atomic import open_text, replacing
from nuxel.export.csv_text import csv_line
from nuxel.metrics.average_precision import DSB2018_THRESHOLDS

TITLES = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap90": "AP90",
    "precision": "Prec",
    "recall": "Rec",
    "f1": "F1",
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
    "aji": "AJI",
    "aji_plus": "AJI+",
    "ncs": "NCS",
    "dice": "Dice",
    "ensemble_dice": "Dice2",
    "object_dice": "ObjDice",
    "mean_iou": "mIoU",
    "pixel_accuracy": "PixAcc",
    HAUSDORFF: "Hausd",
}
"""Scores that tables show, in this order, and what they are called there."""

_SHOWN = (
    "ap",
    "ap50",
    "ap75",
    "ap90",
    "precision",
    "recall",
    "f1",
    "pq",
    "aji",
    "aji_plus",
    "ncs",
    "dice",
    HAUSDORFF,
)
_WORST = 3


def cell(value: float | int | None) -> str:
    """A number as tables show it: three decimals, whole numbers without, nothing where there is none."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text, the first column to the left, the others to the right.

    Examples
    --------
    >>> print(aligned([["", "AP"], ["all", "0.5"]]))
          AP
    all  0.5
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [
            first.ljust(widths[0]),
            *(text.rjust(width) for text, width in zip(others, widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def as_text(evaluation: Evaluation) -> str:
    """The totals, each group, what became of the nuclei, and the worst images."""
    totals = evaluation.totals
    names = [name for name in _SHOWN if name in totals.mean]
    rows = [["", "images", "true", "predicted", *(TITLES[name] for name in names)]]
    rows.append(_row("mean of images", totals, names))
    if totals.images > 1:
        rows.append(["all nuclei pooled", "", "", "", *(cell(totals.pooled.get(name)) for name in names)])
    for column, groups in evaluation.groups.items():
        rows.append([f"{column}:", *[""] * (len(rows[0]) - 1)])
        rows += [_row(f"  {value or '(empty)'}", summary, names) for value, summary in groups.items()]
    parts = [aligned(rows), errors_as_text(totals, evaluation.settings.threshold), *evaluation.notes]
    if evaluation.boxes:
        parts.append(
            "boxes: " + ", ".join(f"{name} {cell(value)}" for name, value in evaluation.boxes.items())
        )
    annotated = [row for row in evaluation.images if row.annotated]
    if len(annotated) > _WORST:
        worst = sorted(annotated, key=lambda row: row.scores["ap"])[:_WORST]
        parts.append("lowest AP: " + ", ".join(f"{row.image} {cell(row.scores['ap'])}" for row in worst))
    return "\n\n".join(parts)


def _row(name: str, summary: Summary, names: Sequence[str]) -> list[str]:
    counts = (summary.images, summary.truth_nuclei, summary.predicted_nuclei)
    return [name, *map(cell, counts), *(cell(summary.mean.get(score)) for score in names)]


def errors_as_text(summary: Summary, threshold: float) -> str:
    """How the nuclei fared at an IoU threshold, as one sentence."""
    *of_truth, spurious = summary.errors.items()
    parts = ", ".join(f"{count:,} {name}" for name, count in of_truth)
    return f"true nuclei (IoU > {threshold:g}): {parts}; predicted nuclei: {spurious[1]:,} {spurious[0]}"


def comparison_as_text(comparison: Comparison, first: str, second: str) -> str:
    """The two means of each score, their difference, its confidence interval and p-value."""
    rows = [["", "first", "second", "difference", "95 % interval", "p", "better", "worse"]]
    for name, title in TITLES.items():
        if (found := comparison.differences.get(name)) is not None:
            interval = "-" if math.isnan(found.low) else f"{found.low:+.3f} .. {found.high:+.3f}"
            numbers = [
                cell(found.first),
                cell(found.second),
                f"{found.mean:+.3f}",
                interval,
                f"{found.p_value:.2g}",
            ]
            rows.append([title, *numbers, cell(found.better), cell(found.worse)])
    return f"first: {first}\nsecond: {second}\n\n{aligned(rows)}"


def as_json(evaluation: Evaluation, comparison: Comparison | None = None) -> dict[str, Any]:
    """Everything, ready for JSON; what has no value is None."""
    settings = evaluation.settings
    found: dict[str, Any] = {
        "nuxel": __version__,
        "threshold": settings.threshold,
        "where": dict(settings.where),
        "missing": evaluation.missing,
        "iou_thresholds": [float(threshold) for threshold in DSB2018_THRESHOLDS],
        "totals": _summary(evaluation.totals),
        "boxes": _numbers(evaluation.boxes),
        "groups": {
            column: {value: _summary(summary) for value, summary in groups.items()}
            for column, groups in evaluation.groups.items()
        },
        "images": [
            {**_flat(row), "errors": dict(row.errors), "groups": dict(row.groups)}
            for row in evaluation.images
        ],
    }
    if comparison is not None:
        found["second"] = as_json(comparison.second)
        found["differences"] = {
            name: {"mean": _number(one.mean), **{key: _number(value) for key, value in vars(one).items()}}
            for name, one in comparison.differences.items()
        }
    return found


def _summary(summary: Summary) -> dict[str, Any]:
    return {
        "images": summary.images,
        "truth_nuclei": summary.truth_nuclei,
        "predicted_nuclei": summary.predicted_nuclei,
        "mean": _numbers(summary.mean),
        "pooled": _numbers(summary.pooled),
        "errors": dict(summary.errors),
        "mean_curve": [_number(value) for value in summary.mean_curve.tolist()],
        "pooled_curve": [_number(value) for value in summary.pooled_curve.tolist()],
    }


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _flat(row: ImageScores) -> dict[str, Any]:
    return {
        "image": row.image,
        "truth_nuclei": row.truth_nuclei,
        "predicted_nuclei": row.predicted_nuclei,
        "count_error": row.count_error,
        **_numbers(row.scores),
    }


def write_json(path: Path | str, evaluation: Evaluation, comparison: Comparison | None = None) -> None:
    """Write everything as JSON.

    Raises
    ------
    NuxelError
        If the file cannot be written.
    """
    with replacing(path) as part, open_text(part) as file:
        file.write(
            json.dumps(as_json(evaluation, comparison), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        )


def write_csv(path: Path | str, evaluation: Evaluation) -> None:
    """Write one row an image: its groups, counts, scores and error classes. What has no value is an empty field.

    A group whose column has the name of a score or an error class, such as ``split``, is in ``group_split``.

    Raises
    ------
    NuxelError
        If the file cannot be written.
    """
    rows = []
    for row in evaluation.images:
        flat = _flat(row)
        errors = {name.replace(" ", "_"): count for name, count in row.errors.items()}
        taken = {**flat, **errors}
        groups = {f"group_{name}" if name in taken else name: value for name, value in row.groups.items()}
        rows.append({"image": flat.pop("image"), **groups, **flat, **errors})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as part, open_text(part) as file:
        file.write(csv_line(columns))
        for values in rows:
            file.write(csv_line("" if values.get(name) is None else str(values[name]) for name in columns))

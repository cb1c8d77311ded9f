"""The page of a study: its tables, the figures of the paper beside ours, and its charts and pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuxel.errors import NuxelError
from nuxel.export.atomic import replacing
from nuxel.training.study_figures import show_pictures, write_figures
from nuxel.training.study_file import Result, Study
from nuxel.training.study_schema import Milestone, Table

PAGE = "study.md"

RESAMPLES = 5000


def read_results(study: Study, out: Path) -> dict[str, list[Result]]:
    """The results that are there, by row and in order of their seeds; those of other recipes are left out.

    Raises
    ------
    NuxelError
        If a result cannot be read.
    """
    found: dict[str, list[Result]] = {}
    for row in study.file.row:
        results = []
        for path in (out / "results").glob(f"{row.name}-seed*.json"):
            seed = re.fullmatch(r"-seed(\d+)-\w+", path.stem.removeprefix(row.name))
            if seed is None or study.job(row, int(seed[1])).name != path.stem:
                continue
            try:
                result = json.loads(path.read_text(encoding="utf-8"))
                result["seed"], result["images"]
            except (OSError, ValueError, KeyError, TypeError):
                raise NuxelError(
                    f"{path}: the result cannot be read; remove it to run its row again"
                ) from None
            results.append(result)
        found[row.name] = sorted(results, key=lambda result: int(result["seed"]))
    return found


def write_page(study: Study, out: Path, failed: Mapping[str, str]) -> str:
    """Write ``study.md``, the tables and charts of all results that are there, and return it.

    Parameters
    ----------
    failed
        Why rows failed, by row and seed; listed at the end.
    """
    results = read_results(study, out)
    parts = [f"# {study.file.title}", f"Budget `{study.budget.name}`. {study.budget.note}".strip()]
    for table in study.file.table:
        parts += [f"## {table.title}", table.note] if table.note else [f"## {table.title}"]
        parts.append(_scores(study, table, results))
        parts += [_difference(study, table, pair, results) for pair in table.compare]
        parts += [_ratio(study, table, pair, results) for pair in table.ratios]
        if table.curves:
            parts += _curves(study, table, results)
    parts += write_figures(study, out, results)
    parts += show_pictures(study, out, results)
    if failed:
        parts += ["## Failed", "\n".join(f"- {name}: {reason}" for name, reason in failed.items())]
    page = "\n\n".join(parts) + "\n"
    with replacing(out / PAGE) as part:
        part.write_text(page, encoding="utf-8")
    return page


def _scores(study: Study, table: Table, results: Mapping[str, list[Result]]) -> str:
    ious = any("IoU" in one for entry in table.rows for one in results[entry.row])
    heads = [
        "row",
        "paper's mAP",
        "mAP",
        "spread",
        "seeds",
        "AP50",
        *["IoU"] * ious,
        *table.scores,
        "steps",
        "minutes",
        "plateau",
    ]
    lines = []
    for entry in table.rows:
        paper = "" if entry.paper is None else f"{entry.paper:.3f}"
        found = results[entry.row]
        cells = (
            _cells(found, [*["IoU"] * ious, *table.scores])
            if found
            else ["not run", "", "0", *[""] * (len(heads) - 5)]
        )
        lines.append([study.label(study.row(entry.row)), paper, *cells])
    return _markdown(heads, lines)


def _cells(found: Sequence[Result], more: Sequence[str]) -> list[str]:
    """Mean mAP, its standard deviation over seeds, how many, AP50, the scores that are asked for, steps, minutes, and
    how many reached a plateau.
    """
    scores = np.array([(one["mAP"], one["AP50"]) for one in found])
    trained = [one for one in found if one["plateau"] is not None]
    plateau = ""
    if trained:
        fall = np.mean([one["loss_fall"] for one in trained])
        answer = "yes" if all(one["plateau"] for one in trained) else "no"
        plateau = f"{answer} ({fall:+.1%})"
    return [
        f"{scores[:, 0].mean():.3f}",
        f"{scores[:, 0].std(ddof=1):.3f}" if len(found) > 1 else "",
        str(len(found)),
        f"{scores[:, 1].mean():.3f}",
        *(_mean(found, score) for score in more),
        str(found[0]["steps"] or ""),
        f"{np.mean([sum(one['seconds'].values()) for one in found]) / 60:.1f}",
        plateau,
    ]


def _mean(found: Sequence[Result], score: str) -> str:
    """The mean of a score over the results that have it, and its standard deviation where there are several.

    Older results have no IoU, and networks of maps no box.
    """
    values = [one[score] for one in found if score in one]
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 and score != "IoU" else ""
    return f"{np.mean(values):.3f}{spread}"


def _difference(
    study: Study, table: Table, pair: tuple[str, str], results: Mapping[str, list[Result]]
) -> str:
    labels = [study.label(study.row(name)) for name in pair]
    title = f"**{labels[1]}** minus **{labels[0]}**"
    if problem := _not_comparable(pair, table.by, results):
        return f"{title}: {problem}"
    worse, better = (_by_image(results[name], table.by) for name in pair)
    mean, low, high = difference(worse, better)
    verdict = "the order holds" if low > 0 else "the order is reversed" if high < 0 else "the order is open"
    return (
        f"{title}: {_of_images(table.by)} {mean:+.3f}, "
        f"95 % interval over {len(worse)} images {low:+.3f} to {high:+.3f} "
        f"(means of {len(results[pair[0]])} and {len(results[pair[1]])} seeds): {verdict}"
    )


def _ratio(study: Study, table: Table, pair: tuple[str, str], results: Mapping[str, list[Result]]) -> str:
    labels = [study.label(study.row(name)) for name in pair]
    title = f"**{labels[0]}** over **{labels[1]}**"
    if problem := _not_comparable(pair, table.by, results):
        return f"{title}: {problem}"
    part, whole = (_by_image(results[name], table.by) for name in pair)
    share, low, high = ratio(part, whole)
    return (
        f"{title}: {share:.1%} of its {_of_images(table.by)}, "
        f"95 % interval over {len(part)} images {low:.1%} to {high:.1%} "
        f"(means of {len(results[pair[0]])} and {len(results[pair[1]])} seeds)"
    )


def _not_comparable(pair: tuple[str, str], score: str, results: Mapping[str, list[Result]]) -> str:
    """Why the scores of two rows' images cannot be compared; nothing if they can."""
    if not all(results[name] for name in pair):
        return "not run"
    scored = [one["images"] for name in pair for one in results[name]]
    if any(
        [image["image"] for image in images] != [image["image"] for image in scored[0]] for images in scored
    ):
        return "scored on different images; remove the older results to run them again"
    if not all(score in image for images in scored for image in images):
        return f"{score} was not measured of both"
    return ""


def _of_images(score: str) -> str:
    """What a score is called where the mean of that of single images is meant: the table's is of all boxes together."""
    return f"mean of the images' own {score}" if score == "box_AP50" else score


def _by_image(found: Sequence[Result], score: str) -> NDArray[np.float64]:
    """The score of each image, a mean over seeds."""
    values: NDArray[np.float64] = np.array([[image[score] for image in one["images"]] for one in found])
    return np.asarray(values.mean(axis=0))


def difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean of ``second - first``, ``(images,)`` each, and the ends of its 95 % interval: the percentiles of a bootstrap
    over images.

    Examples
    --------
    >>> difference(np.array([0.25, 0.5]), np.array([0.5, 0.75]))
    (0.25, 0.25, 0.25)
    """
    return _with_interval(first, second, lambda one, other: other - one)


def ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean of ``part`` over that of ``whole``, ``(images,)`` each, and the ends of its 95 % interval, as
    :func:`difference` has it; infinite or not a number where the whole is 0.

    Examples
    --------
    >>> ratio(np.array([0.25, 0.5]), np.array([0.5, 1.0]))
    (0.5, 0.5, 0.5)
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return _with_interval(part, whole, np.divide)


def _with_interval(
    first: NDArray[np.float64], second: NDArray[np.float64], compared: Callable[[Any, Any], Any]
) -> tuple[float, float, float]:
    """What is made of the two means over images, and its percentiles over samples of the images."""
    drawn = np.random.default_rng(0).integers(len(first), size=(RESAMPLES, len(first)))
    low, high = np.quantile(compared(first[drawn].mean(axis=1), second[drawn].mean(axis=1)), [0.025, 0.975])
    return float(compared(first.mean(), second.mean())), float(low), float(high)


def _curves(study: Study, table: Table, results: Mapping[str, list[Result]]) -> list[str]:
    """The IoUs of the maps by step, and the milestones; rows that were not trained are left out."""
    curves = [
        (study.label(study.row(entry.row)), [one["curve"] for one in results[entry.row]])
        for entry in table.rows
        if any(one["curve"] for one in results[entry.row])
    ]
    parts = []
    for score, what in (("IoU_nucleus", "nuclei"), ("IoU_touching", "touching borders")):
        steps = sorted({point["step"] for _, of in curves for one in of for point in one if score in point})
        if steps:
            lines = [[label, *(_at(of, score, step) for step in steps)] for label, of in curves]
            parts += [
                f"IoU of {what} on the validation images, by step:",
                _markdown(["row", *map(str, steps)], lines),
            ]
    if curves and study.file.milestone:
        heads = [f"{milestone.score} {milestone.at:g}" for milestone in study.file.milestone]
        lines = [
            [label, *(_reached(of, milestone) for milestone in study.file.milestone)] for label, of in curves
        ]
        parts += ["First validation at which a score was reached:", _markdown(["row", *heads], lines)]
    return parts


def _at(curves: Sequence[list[dict[str, float]]], score: str, step: int) -> str:
    values = [point[score] for curve in curves for point in curve if point["step"] == step and score in point]
    return f"{np.mean(values):.3f}" if values else ""


def _reached(curves: Sequence[list[dict[str, float]]], milestone: Milestone) -> str:
    """Mean step and minutes of the first validation that reached it, over the seeds that did."""
    first = [
        next((point for point in curve if point.get(milestone.score, -1) >= milestone.at), None)
        for curve in curves
    ]
    there = [point for point in first if point is not None]
    if not there:
        return "not reached"
    step, minutes = (np.mean([point[name] for point in there]) for name in ("step", "seconds"))
    of = "" if len(there) == len(first) else f" ({len(there)} of {len(first)})"
    return f"step {step:.0f}, {minutes / 60:.1f} min{of}"


def _markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)

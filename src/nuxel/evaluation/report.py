"""``--report``: one HTML file with charts, tables and pictures, which needs no network when it is opened."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from nuxel.data.label_sets import Nothing
from nuxel.evaluation.charts import distributions, error_bars, need_plotting, precision_curves, scatter
from nuxel.evaluation.compare import Comparison
from nuxel.evaluation.detections import nucleus_scores
from nuxel.evaluation.evaluate import Evaluation
from nuxel.evaluation.images import find_displays, read_display
from nuxel.evaluation.pictures import Drawing, draw
from nuxel.evaluation.scores import HAUSDORFF, ImageScores
from nuxel.evaluation.summary import Summary
from nuxel.evaluation.tables import TITLES, cell
from nuxel.export.atomic import open_text, replacing

Cell = str | float | int | None

_TILES = ("ap", "ap50", "ap75", "f1", "pq", "aji", "dice")
_EACH = 3
_NAMES = ("first", "second")
_SWITCHES = (
    '<p class="switches">'
    '<label><input type="checkbox" checked data-hide="truth"> <span class="key-truth">truth</span></label> '
    '<label><input type="checkbox" checked data-hide="predicted"> <span class="key-predicted">prediction</span>'
    '</label> <label><input type="checkbox" checked data-hide="captions"> IoU of each match (and score)</label> '
    '&middot; <span class="key-ignored">not annotated (does not count)</span> '
    "&middot; click a picture to enlarge it</p>"
)
_NOTE = (
    '<p class="note">AP, AP50 ... AP95: TP / (TP + FP + FN), a match being an IoU above the threshold for the mean of '
    "images (2018 Data Science Bowl) and at least the threshold for all nuclei pooled (StarDist); AP is the mean over "
    "0.50, 0.55 ... 0.95. Precision, recall, F1, PQ and the classes of errors match above IoU {threshold:g}. Merged: a "
    "prediction covers most of two or more nuclei. Split: two or more predictions lie mostly in one nucleus. Poorly "
    "outlined: overlapped, but not matched. Missed, spurious: a nucleus, a prediction that nothing overlaps. AJI: "
    "aggregated Jaccard index; NCS: normalised coverage score; Dice2: ensemble Dice; ObjDice: object Dice; Hausd: mean "
    "Hausdorff distance of matched nuclei in pixels, less being better; voc and coco: average precision of the scored "
    "boxes.</p>"
)


def write_report(
    path: Path | str, evaluation: Evaluation, comparison: Comparison | None = None, images: Path | None = None
) -> None:
    """Write the report.

    Parameters
    ----------
    path
        The HTML file; an existing one is replaced.
    evaluation
        What it is about.
    comparison
        With a second prediction; its first one must be ``evaluation``.
    images
        Folder of the images; without it they are looked for beside the truth, and where there are none outlines are
        drawn on black.

    Raises
    ------
    UsageError
        If Matplotlib is not installed, or there is no image in ``images``.
    NuxelError
        If the file cannot be written.
    """
    need_plotting()
    displays = find_displays(evaluation, images)
    evaluations = {_NAMES[0]: evaluation}
    if comparison:
        evaluations[_NAMES[1]] = comparison.second
    body = [
        *_head(evaluation),
        '<h2>Scores</h2><div class="charts">',
        *(f"<div>{chart}</div>" for chart in (precision_curves(evaluations), distributions(evaluations))),
        "</div>",
        *_tables(evaluation, " (first prediction)" if comparison else ""),
        _SWITCHES,
        *(_comparison(comparison, displays) if comparison else ()),
        "<h2>Best, median and worst images</h2>",
        *_extremes(evaluation, displays),
        "<h2>All images</h2>",
        _image_table(evaluation.images),
        _NOTE.format(threshold=evaluation.settings.threshold),
    ]
    template = resources.files("nuxel.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    page = string.Template(template).substitute(title="nuxel evaluate", body="\n".join(body))
    with replacing(path) as part, open_text(part) as file:
        file.write(page)


def _head(evaluation: Evaluation) -> list[str]:
    totals = evaluation.totals
    tiles = [("images", cell(totals.images)), ("true nuclei", cell(totals.truth_nuclei))]
    tiles += [("predicted nuclei", cell(totals.predicted_nuclei))]
    shown = [name for name in (*_TILES, HAUSDORFF) if name in totals.mean]
    tiles += [(f"{TITLES[name]}, mean of images", cell(totals.mean[name])) for name in shown]
    tiles += [(name.replace("_", " "), cell(value)) for name, value in evaluation.boxes.items()]
    example = next(
        (one for one in evaluation.pairs if not isinstance(one.predicted, Nothing)), evaluation.pairs[0]
    )
    return [
        "<h1>Predicted against true nuclei</h1>",
        f'<p class="files">{escape(example.predicted.where)} against {escape(example.truth.where)}',
        f"and {totals.images - 1} more</p>" if totals.images > 1 else "</p>",
        *(f'<p class="files">{escape(note)}.</p>' for note in evaluation.notes),
        '<div class="tiles">',
        *(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for name, value in tiles),
        "</div>",
    ]


def _tables(evaluation: Evaluation, whose: str) -> list[str]:
    totals = evaluation.totals
    pooled = [None, None, None, *(totals.pooled.get(name) for name in TITLES if name in totals.mean)]
    parts = [
        _table(
            _summary_head(totals), [_summary_row("mean of images", totals), ["all nuclei pooled", *pooled]]
        )
    ]
    for column, groups in evaluation.groups.items():
        rows = [_summary_row(value or "(empty)", summary) for value, summary in groups.items()]
        parts += [f"<h3>By {escape(column)}</h3>", _table(_summary_head(totals), rows)]
    summaries = {"all": totals}
    for column, groups in evaluation.groups.items():
        summaries |= {f"{column}: {value or '(empty)'}": summary for value, summary in groups.items()}
    errors: list[list[Cell]] = [[name, *one.errors.values()] for name, one in summaries.items()]
    parts += [
        f"<h2>What became of the nuclei{whose}</h2>",
        f'<div class="charts"><div>{error_bars(summaries)}</div></div>',
    ]
    return [*parts, _table(["", *totals.errors], errors)]


def _summary_head(totals: Summary) -> list[str]:
    return [
        "",
        "images",
        "true",
        "predicted",
        *(title for name, title in TITLES.items() if name in totals.mean),
    ]


def _summary_row(name: str, summary: Summary) -> list[Cell]:
    counts = (summary.images, summary.truth_nuclei, summary.predicted_nuclei)
    return [name, *counts, *(summary.mean[score] for score in TITLES if score in summary.mean)]


def _image_table(rows: Sequence[ImageScores]) -> str:
    scores = [name for name in TITLES if any(name in row.scores for row in rows)]
    head = [
        "image",
        *rows[0].groups,
        "true",
        "predicted",
        *(TITLES[name] for name in scores),
        *rows[0].errors,
    ]
    body: list[list[Cell]] = [
        [
            row.image,
            *row.groups.values(),
            row.truth_nuclei,
            row.predicted_nuclei,
            *(row.scores.get(name) for name in scores),
            *row.errors.values(),
        ]
        for row in rows
    ]
    return _table(head, body)


def _table(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table that sorts by the column whose head is clicked."""
    lines = [
        '<div class="scroll"><table><thead><tr>',
        *(f"<th>{escape(name)}</th>" for name in head),
        "</tr></thead>",
    ]
    lines.append("<tbody>")
    for row in rows:
        lines.append("<tr>" + "".join(map(_cell, row)) + "</tr>")
    return "".join([*lines, "</tbody></table></div>"])


def _cell(value: Cell) -> str:
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    sort_by = "" if value is None or value != value else f"{value:.9g}"
    return f'<td data-value="{sort_by}">{cell(value)}</td>'


def _comparison(comparison: Comparison, displays: dict[str, Path]) -> list[str]:
    first, second = comparison.first, comparison.second
    where = [escape(one.pairs[0].predicted.where) for one in (first, second)]
    head = ["", *_NAMES, "difference", "95 % from", "to", "p (Wilcoxon)", "second better", "second worse"]
    rows: list[list[Cell]] = []
    for name, title in TITLES.items():
        if (one := comparison.differences.get(name)) is not None:
            numbers = (one.first, one.second, one.mean, one.low, one.high)
            rows.append([title, *numbers, f"{one.p_value:.2g}", one.better, one.worse])
    parts = [
        "<h2>First and second prediction</h2>",
        f'<p class="files">first: {where[0]} ...<br>second: {where[1]} ...</p>',
        f'<div class="charts"><div>{scatter(first, second, _NAMES)}</div></div>',
        _table(head, rows),
        '<p class="note">Interval: bootstrap over images of the mean difference; none below five images. '
        "p: paired two-sided test.</p>",
        "<h3>Where they differ most</h3>",
        '<div class="pictures two">',
    ]
    for place in comparison.most_different(_EACH):
        parts += [
            _figure(one, place, displays, name) for one, name in zip((first, second), _NAMES, strict=True)
        ]
    return [*parts, "</div>"]


def _extremes(evaluation: Evaluation, displays: dict[str, Path]) -> list[str]:
    rows = evaluation.images
    annotated = [place for place, row in enumerate(rows) if row.annotated]
    order = sorted(annotated, key=lambda i: (-rows[i].scores["ap"], -rows[i].truth_nuclei, rows[i].image))
    each = min(_EACH, max(len(order) // 3, 1))
    middle = (len(order) - each) // 2
    chosen = {"Best": order[:each], "Median": order[middle : middle + each], "Worst": order[-each:][::-1]}
    parts, shown = [], set[int]()
    for title, places in chosen.items():
        new = [place for place in places if place not in shown]
        shown.update(new)
        if new:
            parts += [f"<h3>{title}</h3>", '<div class="pictures">']
            parts += [*(_figure(evaluation, place, displays) for place in new), "</div>"]
    return parts


def _figure(evaluation: Evaluation, place: int, displays: dict[str, Path], name: str = "") -> str:
    pair, row = evaluation.pairs[place], evaluation.images[place]
    scores = ", ".join(f"{TITLES[score]} {cell(row.scores[score])}" for score in ("ap", "ap50", "pq", "aji"))
    wrong = ", ".join(f"{count:,} {error}" for error, count in row.errors.items() if count)
    caption = f"<b>{escape(row.image)}</b> {name}<br>{scores}<br>{wrong}"
    if pair.is_slide:
        return f"<figure><figcaption>{caption}<br>too large for a picture</figcaption></figure>"
    truth, predicted = pair.read()
    display, why_not = read_display(displays.get(pair.image), truth.shape)
    svg, (rows, columns) = draw(
        Drawing(truth, predicted, display, nucleus_scores(pair.predicted), evaluation.settings.threshold)
    )
    if (rows.stop - rows.start, columns.stop - columns.start) != truth.shape:
        part = f"rows {rows.start} to {rows.stop}, columns {columns.start} to {columns.stop}"
        caption += f"<br>the part with most errors: {part} of {truth.shape[0]} x {truth.shape[1]}"
    if why_not:
        caption += f"<br>on black: {escape(why_not)}"
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"

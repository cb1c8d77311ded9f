"""A study's recorded numbers as charts, and what its rows find in some images side by side.

The charts are those of the papers: a score by epoch (FCN-8s and Mask R-CNN paper, figures 4, 6, 8 and 9) and a table's
scores with the paper's beside them (attention paper, table I); so are the pictures, outlines beside the true ones
(FCN-8s and Mask R-CNN paper, figure 10) and attention (attention paper, figure 6).
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nuxel.errors import UsageError
from nuxel.evaluation.charts import as_svg, need_plotting, new_figure
from nuxel.export.atomic import replacing
from nuxel.training.study_file import Result, Study
from nuxel.training.study_schema import LOSSES, Figure, Picture, Row, file_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOLDER = "figures"
SIDE = 512
"""Of a larger image a picture shows this many rows and columns from its top left corner."""
COLOURS = ("#1f6fb2", "#d9822b", "#3a9a5b", "#c8463c", "#8a63b8", "#4fa3c7", "#a0792c", "#5f5f5f")
_AXES = {
    "IoU": "IoU of the foreground",
    "IoU_foreground": "IoU of the foreground",
    "IoU_nucleus": "IoU of the map of nuclei",
    "IoU_touching": "IoU of the map of touching borders",
    "loss": "training loss",
    "confidence": "training loss: confidence",
    "location": "training loss: location",
    "segmentation": "training loss: segmentation",
}
"""What an axis says where the score's own name says too little."""
_SEED: dict[str, Any] = {"ls": "", "marker": ".", "color": "black", "markersize": 5}
_PAPER: dict[str, Any] = {
    "ls": "",
    "marker": "D",
    "color": "white",
    "markeredgecolor": "black",
    "markersize": 5,
}
_GAP = 4

Results = Mapping[str, Sequence[Result]]
Panel = NDArray[np.uint8]


def write_figures(study: Study, out: Path, results: Results) -> list[str]:
    """Draw every chart of which there are results as SVG, and return what the page says of all: Markdown paragraphs."""
    if not study.file.figure:
        return []
    try:
        need_plotting()
    except UsageError:
        return ["Figures need Matplotlib; install it with `pip install 'nuxel[report]'`."]
    parts = []
    for figure in study.file.figure:
        parts += [f"## {figure.title}", figure.note] if figure.note else [f"## {figure.title}"]
        if any(results[name] for name in figure.rows):
            path = out / FOLDER / f"{file_name(figure.title)}.svg"
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as part:
                part.write_text(_DRAW[figure.kind](study, figure, results), encoding="utf-8")
            parts.append(_link(figure.title, path))
        else:
            parts.append("not run")
    return parts


def draw_curves(study: Study, figure: Figure, results: Results) -> str:
    """A score on the validation images by epoch, as SVG; see :class:`~nuxel.training.study_schema.Figure`."""
    chart, axes = new_figure(6.4, 3.2 + 0.2 * len(figure.rows))
    for name, colour in zip(figure.rows, _colours(figure.rows), strict=True):
        curve = np.array(mean_curve(results[name], figure.score))
        if len(curve):
            epochs, means, spreads = curve.T
            axes.plot(
                epochs, means, "o-", color=colour, markersize=3, lw=1.3, label=study.label(study.row(name))
            )
            if spreads.any():
                axes.fill_between(epochs, means - spreads, means + spreads, color=colour, alpha=0.18, lw=0)
    where = "" if figure.score in LOSSES else " on the validation images"
    axes.set(xlabel="epoch", ylabel=_AXES.get(figure.score, figure.score) + where)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if axes.lines:
        chart.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=1)
    return as_svg(chart)


def mean_curve(found: Sequence[Result], score: str) -> list[tuple[int, float, float]]:
    """Epoch, mean and standard deviation over seeds (of a sample; 0 for one) of a score, where it was measured.

    Examples
    --------
    >>> curves = [[{"epoch": 2, "mAP": 0.25}], [{"epoch": 1}, {"epoch": 2, "mAP": 0.75}, {"epoch": 3, "mAP": 0.5}]]
    >>> [(epoch, mean, round(sd, 3)) for epoch, mean, sd in mean_curve([{"curve": one} for one in curves], "mAP")]
    [(2, 0.5, 0.354), (3, 0.5, 0.0)]
    """
    values: dict[int, list[float]] = defaultdict(list)
    for result in found:
        for point in result["curve"]:
            if score in point:
                values[int(point["epoch"])].append(point[score])
    return [(epoch, *_mean_and_spread(values[epoch])) for epoch in sorted(values)]


def draw_bars(study: Study, figure: Figure, results: Results) -> str:
    """A score on the test images of each row, as SVG; see :class:`~nuxel.training.study_schema.Figure`."""
    chart, axes = new_figure(8, 1 + 0.4 * len(figure.rows))
    rows = [study.row(name) for name in figure.rows]
    papers = [study.paper(row) if figure.score == "mAP" else None for row in rows]
    for place, (name, paper, colour) in enumerate(
        zip(figure.rows, papers, _colours(figure.rows), strict=True)
    ):
        values = [result[figure.score] for result in results[name] if figure.score in result]
        _draw_bar(axes, place, values, paper, colour, "not measured" if results[name] else "not run")
    axes.plot([], [], label="one seed", **_SEED)
    if any(paper is not None for paper in papers):
        axes.plot([], [], label="the paper", **_PAPER)
    axes.set_yticks(range(len(rows)), [study.label(row) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"{_AXES.get(figure.score, figure.score)} on the test images")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)
    chart.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=2)
    return as_svg(chart)


def _draw_bar(
    axes: Axes, place: int, values: Sequence[float], paper: float | None, colour: str, none: str
) -> None:
    """One row: a bar to the mean with its standard deviation, a dot for each seed, the paper's mark; or ``none``."""
    texts = []
    if values:
        mean, spread = _mean_and_spread(values)
        axes.barh(place, mean, color=colour, alpha=0.55, height=0.62)
        if len(values) > 1:
            axes.errorbar(mean, place, xerr=spread, color="black", lw=1, capsize=3)
        axes.plot(values, [place] * len(values), **_SEED)
        texts.append(f"{mean:.3f}" + (f" ± {spread:.3f}" if len(values) > 1 else ""))
    else:
        texts.append(none)
    if paper is not None:
        axes.plot(paper, place, **_PAPER)
        texts.append(f"paper {paper:.3f}")
    axes.annotate(
        "; ".join(texts),
        (1, place),
        (6, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )


_DRAW = {"curves": draw_curves, "bars": draw_bars}


def _colours(rows: Sequence[str]) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(len(rows))]


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def model_path(study: Study, out: Path, row: Row, seed: int) -> Path:
    """The model file that a row trains, or that it evaluates."""
    trained = study.row(row.of) if row.of else row
    return out / "models" / f"{study.job(trained, seed).name}.onnx"


def pictured_rows(study: Study, out: Path, picture: Picture, results: Results) -> list[tuple[Row, Result]]:
    """The rows of a picture that have a result and a model with seed 0, and these results."""
    rows = [study.row(name) for name in picture.rows]
    there = [(row, result) for row in rows for result in results[row.name] if result["seed"] == 0]
    return [(row, result) for row, result in there if model_path(study, out, row, 0).is_file()]


def picture_path(study: Study, out: Path, picture: Picture, results: Results) -> Path | None:
    """The file of a picture: its name holds a hash of all that it shows. None while no row of it has been run."""
    jobs = [study.job(row, 0).name for row, _ in pictured_rows(study, out, picture, results)]
    shown = json.dumps([picture.images, picture.attention, jobs])
    digest = hashlib.sha256(shown.encode()).hexdigest()[:12]
    return out / FOLDER / f"{file_name(picture.title)}-{digest}.png" if jobs else None


def show_pictures(study: Study, out: Path, results: Results) -> list[str]:
    """What the page says of the pictures, as far as they are drawn: Markdown paragraphs."""
    parts = []
    for picture in study.file.picture:
        parts.append(f"## {picture.title}")
        path = picture_path(study, out, picture, results)
        if path is None or not path.is_file():
            parts.append("not run")
            continue
        columns = ["the true outlines"]
        for row, _ in pictured_rows(study, out, picture, results):
            columns.append(study.label(row))
            if picture.attention is not None and study.has_attention(row, picture.attention):
                columns.append(f"its attention at P{picture.attention}, from dark (0) to light (1)")
        caption = (
            f"From left to right: {'; '.join(columns)}. From top to bottom: {', '.join(picture.images)}."
        )
        parts += [_link(picture.title, path), caption]
    return parts


def side_by_side(columns: Sequence[Sequence[Panel]]) -> Panel:
    """Panels in a grid, a column from top to bottom each, on grey; those of one line have the same size.

    Examples
    --------
    >>> side_by_side([[np.zeros((2, 3, 3), np.uint8)], [np.ones((2, 3, 3), np.uint8)]])[0, :, 0].tolist()
    [0, 0, 0, 128, 128, 128, 128, 1, 1, 1]
    """
    lines = [
        np.hstack([_framed(panel[:SIDE, :SIDE], 0, _GAP) for panel in line])[:, :-_GAP]
        for line in zip(*columns, strict=True)
    ]
    width = max(line.shape[1] for line in lines)
    return np.ascontiguousarray(
        np.vstack([_framed(line, _GAP, width - line.shape[1]) for line in lines])[:-_GAP]
    )


def _framed(panel: Panel, below: int, right: int) -> Panel:
    return np.pad(panel, ((0, below), (0, right), (0, 0)), constant_values=128)


def _link(title: str, path: Path) -> str:
    return f"![{title}]({FOLDER}/{path.name})"

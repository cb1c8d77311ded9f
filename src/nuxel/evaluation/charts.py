"""Charts of a report, as SVG text. Needs Matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nuxel.errors import UsageError
from nuxel.evaluation.evaluate import Evaluation
from nuxel.evaluation.summary import Summary
from nuxel.evaluation.tables import TITLES
from nuxel.metrics.average_precision import DSB2018_THRESHOLDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#1f6fb2", "#d9822b")
"""First and second prediction."""

ERROR_COLOURS = {
    "correct": "#3a9a5b",
    "poorly outlined": "#e0b93b",
    "merged": "#8a63b8",
    "split": "#4fa3c7",
    "missed": "#c8463c",
    "spurious": "#8c8c8c",
}
_SPREAD = ("ap", "ap50", "ap75", "f1", "pq", "aji", "ncs", "dice")
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.parse_math": False,  # names of groups may hold dollar signs
    "svg.fonttype": "none",
    "svg.hashsalt": "nuxel",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def need_plotting() -> None:
    """Refuse in one sentence where Matplotlib is not installed.

    Raises
    ------
    UsageError
        If so.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("a report needs matplotlib; install it with: pip install 'nuxel[report]'") from None


def precision_curves(evaluations: Mapping[str, Evaluation]) -> str:
    """AP against the IoU threshold, by both rules, of one or two predictions by name."""
    figure, axes = new_figure(4.6, 3.2)
    thresholds = [float(threshold) for threshold in DSB2018_THRESHOLDS]
    for (name, evaluation), colour in zip(evaluations.items(), COLOURS, strict=False):
        totals, of = evaluation.totals, f"{name}, " if len(evaluations) > 1 else ""
        axes.plot(
            thresholds, totals.mean_curve, "o-", color=colour, markersize=4, label=f"{of}mean of images"
        )
        axes.plot(
            thresholds,
            totals.pooled_curve,
            "s--",
            color=colour,
            markersize=3.5,
            label=f"{of}all nuclei pooled",
        )
    axes.set(xlabel="IoU threshold", ylabel="average precision", ylim=(0, 1.02), xticks=thresholds[::2])
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return as_svg(figure)


def distributions(evaluations: Mapping[str, Evaluation]) -> str:
    """A point for each image and a line at the median, for each of eight scores."""
    figure, axes = new_figure(6.4, 3.2)
    width = 0.7 / len(evaluations)
    rng = np.random.default_rng(0)
    for which, (name, evaluation) in enumerate(evaluations.items()):
        for place, score in enumerate(_SPREAD):
            values = np.array([row.scores[score] for row in evaluation.images if row.annotated])
            centre = place + (which - (len(evaluations) - 1) / 2) * width
            x = centre + rng.uniform(-0.4, 0.4, len(values)) * width
            axes.plot(x, values, ".", color=COLOURS[which], alpha=0.45, markersize=4)
            label = name if place == 0 and len(evaluations) > 1 else None
            if len(values):
                axes.hlines(np.median(values), centre - width / 2, centre + width / 2, color="black", lw=1.4)
            axes.plot([], [], ".", color=COLOURS[which], label=label)
    axes.set(ylabel="score of an image (line: median)", ylim=(-0.02, 1.02))
    axes.set_xticks(range(len(_SPREAD)), [TITLES[score] for score in _SPREAD])
    axes.grid(alpha=0.3, axis="y")
    if len(evaluations) > 1:
        axes.legend(frameon=False, fontsize=8)
    return as_svg(figure)


def error_bars(summaries: Mapping[str, Summary]) -> str:
    """What became of the nuclei of each set of images: shares of the true ones, and spurious ones beyond them.

    Sets without a true nucleus, of which there are no shares, are left out.
    """
    of = {name: one for name, one in summaries.items() if one.truth_nuclei}
    figure, axes = new_figure(6.4, 0.9 + 0.32 * max(len(of), 2))
    left = np.zeros(len(of))
    for error, colour in ERROR_COLOURS.items():
        share = [100 * one.errors[error] / one.truth_nuclei for one in of.values()]
        axes.barh(range(len(of)), share, left=left, color=colour, label=error, height=0.7)
        left = left + share
    axes.set_yticks(range(len(of)), [shortened(name) for name in of], parse_math=False)
    axes.invert_yaxis()
    axes.axvline(100, color="black", lw=0.8)
    axes.set(xlabel="% of the true nuclei (beyond 100: predictions on nothing)")
    axes.legend(ncols=3, frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1))
    return as_svg(figure)


def shortened(name: str, most: int = 36) -> str:
    """A long name without its middle.

    Examples
    --------
    >>> shortened("stain: haematoxylin and eosin", 20)
    'stain: hae...d eosin'
    """
    if len(name) <= most:
        return name
    head, tail = most // 2, most - most // 2 - 3
    return f"{name[:head]}...{name[-tail:]}"


def scatter(first: Evaluation, second: Evaluation, names: tuple[str, str]) -> str:
    """AP of each image by the first prediction against the second."""
    figure, axes = new_figure(3.6, 3.4)
    x, y = ([row.scores["ap"] for row in one.images] for one in (first, second))
    axes.plot([0, 1], [0, 1], color="grey", lw=0.8)
    axes.plot(x, y, ".", color=COLOURS[0], alpha=0.6)
    axes.set(
        xlabel=f"AP, {names[0]}",
        ylabel=f"AP, {names[1]}",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    axes.grid(alpha=0.3)
    return as_svg(figure)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty chart of this size in inches, in the style of all charts."""
    # Figure itself, not pyplot: that would look for a screen.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure((width, height), layout="constrained")
        return figure, figure.add_subplot()


def as_svg(figure: Figure) -> str:
    """The chart as an SVG element; the same figure gives the same text."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]

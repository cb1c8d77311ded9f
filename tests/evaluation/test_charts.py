"""Charts: what was plotted, read from the SVG and from the figure."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import numpy as np
import pytest

from nuxel.errors import UsageError
from nuxel.evaluation import charts
from nuxel.evaluation.evaluate import Evaluation, evaluate

Draw = Callable[..., np.ndarray]


@pytest.fixture
def evaluation(squares: Draw) -> Evaluation:
    pytest.importorskip("matplotlib")
    return evaluate(squares(1, 2, 7, shift={2: 2}), squares(1, 2, 3))


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [element.text for element in root.iter() if element.tag.endswith("text") and element.text]


def figures(monkeypatch: pytest.MonkeyPatch) -> list:
    seen: list = []
    monkeypatch.setattr(charts, "as_svg", lambda figure: seen.append(figure) or "")
    return seen


def test_charts_are_svg_with_text(evaluation: Evaluation) -> None:
    for svg in (
        charts.precision_curves({"first": evaluation}),
        charts.distributions({"first": evaluation}),
        charts.error_bars({"all": evaluation.totals}),
        charts.scatter(evaluation, evaluation, ("one", "two")),
    ):
        assert svg.startswith("<svg")
        assert not re.search(r'(href|src)="(?!#)', svg)
    assert {"IoU threshold", "mean of images", "all nuclei pooled"} <= set(
        texts(charts.precision_curves({"first": evaluation}))
    )
    assert {"AP, one", "AP, two"} <= set(texts(charts.scatter(evaluation, evaluation, ("one", "two"))))


def test_the_same_chart_twice(evaluation: Evaluation) -> None:
    assert charts.distributions({"a": evaluation}) == charts.distributions({"a": evaluation})


def test_curves(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = figures(monkeypatch)
    charts.precision_curves({"one": evaluation, "two": evaluation})
    lines = seen[0].axes[0].lines
    np.testing.assert_array_equal(lines[0].get_ydata(), evaluation.totals.mean_curve)
    np.testing.assert_array_equal(lines[1].get_ydata(), evaluation.totals.pooled_curve)
    np.testing.assert_allclose(lines[0].get_xdata(), np.arange(0.5, 1, 0.05))
    assert [line.get_label() for line in lines][2:] == ["two, mean of images", "two, all nuclei pooled"]


def test_one_point_an_image_and_score(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = figures(monkeypatch)
    charts.distributions({"one": evaluation, "two": evaluation})
    points = [line for line in seen[0].axes[0].lines if len(line.get_ydata())]
    shown = [float(line.get_ydata()[0]) for line in points]
    row = evaluation.images[0].scores
    assert shown == [row[name] for name in ("ap", "ap50", "ap75", "f1", "pq", "aji", "ncs", "dice")] * 2
    assert abs(points[3].get_xdata()[0] - 3) < 0.4


def test_error_bars_start_where_the_last_ended(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = figures(monkeypatch)
    charts.error_bars({"all": evaluation.totals, "again": evaluation.totals})
    bars = [(bar.get_x(), bar.get_width()) for container in seen[0].axes[0].containers for bar in container]
    assert set(charts.ERROR_COLOURS) == set(evaluation.totals.errors)
    # two of three correct, one missed, one spurious beyond them
    expected = [
        (0, 200 / 3),
        (0, 200 / 3),
        *[(200 / 3, 0)] * 6,
        *[(200 / 3, 100 / 3)] * 2,
        *[(100, 100 / 3)] * 2,
    ]
    np.testing.assert_allclose(bars, expected)


def test_without_true_nuclei(squares: Draw) -> None:
    pytest.importorskip("matplotlib")
    assert charts.error_bars({"all": evaluate(squares(1), squares()).totals}).startswith("<svg")


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"needs matplotlib; install it with: pip install 'nuxel\[report\]'"):
        charts.need_plotting()


def test_sets_without_true_nuclei_have_no_bar_and_long_names_no_middle(squares: Draw) -> None:
    pytest.importorskip("matplotlib")
    some, none = (evaluate(squares(1, 2), squares(*true)).totals for true in ((1,), ()))
    name = "by: " + "very " * 12 + "long"
    drawn = charts.error_bars({name: some, "nothing there": none})
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
    assert "nothing there" not in texts
    assert [
        text for text in texts if text.startswith("by: very") and text.endswith("very long") and "..." in text
    ]
    assert all(error in texts for error in charts.ERROR_COLOURS)

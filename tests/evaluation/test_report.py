"""The report: complete, self-contained, and shown by a real browser."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuxel.evaluation import pairs
from nuxel.evaluation.compare import compare
from nuxel.evaluation.evaluate import Evaluation, evaluate
from nuxel.evaluation.report import write_report
from nuxel.evaluation.tables import write_csv, write_json

pytest.importorskip("matplotlib")

Draw = Callable[..., np.ndarray]
Save = Callable[..., Path]
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
VOID = {"meta", "input", "br", "image", "path", "rect", "use", "link"}


@pytest.fixture
def evaluation(tmp_path: Path, save: Save, squares: Draw) -> Evaluation:
    """Twelve images; the first nucleus of image n is n / 2 pixels off, the last two images miss one and add one."""
    index = ["id,stain"]
    for number in range(12):
        truth, moved = squares(1, 2, 3), squares(1, 2, 3, shift={1: number // 2})
        moved = np.where(moved == 2, 0, moved) + squares(8) if number > 9 else moved
        save(f"truth/labels/i{number}.png", truth)
        save(f"truth/images/i{number}.png", (truth > 0).astype(np.uint8) * 120 + 40)
        save(f"out/i{number}_labels.tif", moved)
        (tmp_path / "out" / f"i{number}_nuclei.csv").write_text(
            "label,score\n1,0.91\n2,0.82\n3,0.73\n8,0.64\n"
        )
        index.append(f"i{number},{'<blue>' if number % 2 else 'red'}")
    (tmp_path / "index.csv").write_text("\n".join(index))
    return evaluate(tmp_path / "out", tmp_path / "truth", index=tmp_path / "index.csv")


@pytest.fixture
def page(evaluation: Evaluation, tmp_path: Path) -> Path:
    write_report(tmp_path / "report.html", evaluation)
    return tmp_path / "report.html"


def sections(html: str) -> dict[str, str]:
    """What stands below each heading."""
    parts = re.split(r"<h[23]>([^<]*)</h[23]>", html)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def names_in(part: str) -> list[str]:
    return re.findall(r"<figcaption><b>([^<]*)</b>", part)


class Balance(HTMLParser):
    """Fails where tags are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_it_holds_every_section(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    found = sections(html)
    assert list(found) == [
        *("Scores", "By stain", "What became of the nuclei"),
        *("Best, median and worst images", "Best", "Median", "Worst", "All images"),
    ]
    assert found["Scores"].count("<svg") == 2
    assert names_in(found["Best"]) == ["i0", "i1", "i2"]
    assert names_in(found["Worst"]) == ["i11", "i10", "i9"]
    assert names_in(found["Median"]) == ["i4", "i5", "i6"]
    assert len(re.findall("<tr><td>i\\d+</td>", found["All images"])) == 12
    assert "&lt;blue&gt;" in found["By stain"]
    assert "<blue>" not in html
    balance = Balance()
    balance.feed(html)
    assert balance.open == []


def test_it_needs_no_network(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    for target in re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', html) + re.findall(r"url\(([^)]*)\)", html):
        assert target.startswith(("data:", "#"))
    assert "@import" not in html
    assert html.count("data:image/jpeg") == 9


def test_captions_hold_iou_and_score(page: Path) -> None:
    worst = sections(page.read_text(encoding="utf-8"))["Worst"]
    assert "0.54 (0.91)" not in worst
    assert worst.count("1.00 (0.73)") == 3
    assert "1 missed, 1 spurious" in worst


def test_few_images_are_shown_once(tmp_path: Path, squares: Draw, save: Save) -> None:
    write_report(tmp_path / "one.html", evaluate(squares(1), squares(1, 2)))
    html = (tmp_path / "one.html").read_text()
    assert names_in(html) == ["image"]
    assert "on black: no image was found" in html
    assert "Worst" not in sections(html)
    for name in ("a", "b"):
        save(f"t/{name}.npy", squares(1))
        save(f"p/{name}.npy", squares(1) if name == "a" else squares())
    write_report(tmp_path / "two.html", evaluate(tmp_path / "p", tmp_path / "t"))
    assert names_in((tmp_path / "two.html").read_text()) == ["a", "b"]


def test_images_of_another_folder(tmp_path: Path, squares: Draw, save: Save) -> None:
    folder = save("pictures/any.png", np.full((40, 60), 9, np.uint8)).parent
    write_report(tmp_path / "r.html", evaluate(squares(1), squares(1)), images=folder)
    assert "data:image/jpeg" in (tmp_path / "r.html").read_text()


def test_an_image_of_another_name_is_not_shown(tmp_path: Path, squares: Draw, save: Save) -> None:
    folder = save("pictures/any.png", np.full((40, 60), 9, np.uint8)).parent
    found = evaluate(save("p.png", squares(1).astype(np.uint16)), save("t.png", squares(1).astype(np.uint16)))
    write_report(tmp_path / "r.html", found, images=folder)
    assert "no image was found" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize("end", ["png", "geojson"])
def test_images_beside_the_truth_in_the_same_sub_folder(
    tmp_path: Path, squares: Draw, save: Save, end: str
) -> None:
    labels = squares(1).astype(np.uint16)
    save("set/images/plate/A.png", np.full((40, 60), 9, np.uint8))
    if end == "png":
        truth = save("set/labels/plate/A.png", labels)
    else:
        truth = tmp_path / "set" / "labels" / "plate" / "A.geojson"
        truth.parent.mkdir(parents=True)
        truth.write_text('{"type": "FeatureCollection", "features": []}')
    predicted = save("out/plate/A.png", labels)
    write_report(tmp_path / "r.html", evaluate(predicted.parents[1], truth.parents[1]))
    assert "data:image/jpeg" in (tmp_path / "r.html").read_text()


def test_images_are_found_below_a_folder_that_is_called_masks(
    tmp_path: Path, squares: Draw, save: Save
) -> None:
    labels = squares(1).astype(np.uint16)
    save("masks/study/images/A.png", np.full((40, 60), 9, np.uint8))
    truth, predicted = save("masks/study/truth/A.png", labels), save("out/A.png", labels)
    write_report(tmp_path / "r.html", evaluate(predicted.parent, truth.parent))
    assert "data:image/jpeg" in (tmp_path / "r.html").read_text()


def test_names_that_are_no_text_and_dollar_signs(tmp_path: Path, squares: Draw) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "p").mkdir()
    for name in ("a\udcff.png", "b.png"):
        for folder in ("t", "p"):
            Image.fromarray(squares(1).astype(np.uint16)).save(tmp_path / folder / name)
    found = evaluate(tmp_path / "p", tmp_path / "t")
    write_csv(tmp_path / "s.csv", found)
    write_json(tmp_path / "s.json", found)
    write_report(tmp_path / "r.html", found)
    assert all(
        "udcff" in (tmp_path / name).read_text(encoding="utf-8") for name in ("s.csv", "s.json", "r.html")
    )
    named = [dataclasses.replace(row, groups={"g": "$5 \\foo$"}) for row in found.images]
    write_report(tmp_path / "r.html", dataclasses.replace(found, images=named))


def test_slides_have_no_picture(
    tmp_path: Path, squares: Draw, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "LARGE", 100)
    write_report(tmp_path / "r.html", evaluate(save("p.tif", squares(1)), save("t.tif", squares(1))))
    html = (tmp_path / "r.html").read_text()
    assert "too large for a picture" in html
    assert '<svg class="picture"' not in html


def test_large_images_say_what_part_is_shown(tmp_path: Path) -> None:
    truth = np.zeros((20, 1100), np.int32)
    truth[2:9, 1080:1090] = 1
    write_report(tmp_path / "r.html", evaluate(truth * 0, truth))
    assert (
        "the part with most errors: rows 0 to 20, columns 76 to 1100 of 20 x 1100"
        in (tmp_path / "r.html").read_text()
    )


def test_a_comparison(evaluation: Evaluation, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "truth" / "labels", tmp_path / "copy")
    second = evaluate(tmp_path / "copy", tmp_path / "truth")
    write_report(tmp_path / "c.html", evaluation, compare(evaluation, second))
    found = sections((tmp_path / "c.html").read_text())
    assert names_in(found["Where they differ most"]) == ["i10", "i10", "i11", "i11", "i8", "i8"]
    assert found["Where they differ most"].count("</b> second<br>AP 1.000") == 3
    table = found["First and second prediction"]
    row = re.search(r"<tr><td>AP</td>(.*?)</tr>", table)
    assert row is not None
    numbers = re.findall(r">([^<>]+)</td>", row[1])
    assert numbers[1] == "1.000"
    assert float(numbers[0]) == pytest.approx(evaluation.totals.mean["ap"], abs=6e-4)
    assert numbers[-2:] == ["10", "0"]


def browse(*options: str) -> str:
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *options]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    return shown.stdout


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
class TestBrowser:
    def test_outlines_are_seen(self, page: Path, tmp_path: Path) -> None:
        target = tmp_path / "seen.png"
        browse("--window-size=1300,3000", f"--screenshot={target}", page.as_uri())
        seen = np.asarray(Image.open(target).convert("RGB")).astype(int)
        red, green, blue = seen[..., 0], seen[..., 1], seen[..., 2]
        assert ((green > 200) & (red < 90) & (blue < 130)).sum() > 300
        assert ((red > 230) & (green < 80) & (blue < 80)).sum() > 300
        assert (seen[:60].min(axis=2) < 90).sum() > 100  # the heading, dark on light

    def test_a_click_sorts_and_another_reverses(self, page: Path, tmp_path: Path) -> None:
        script = """<script>
            const table = [...document.querySelectorAll("table")].at(-1), heads = [...table.tHead.rows[0].cells];
            const first = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent).join(",");
            const said = [];
            for (const name of ["AP", "AP", "image", "image"]) {
              heads.find(head => head.textContent === name).click(); said.push(first());
            }
            const box = document.querySelector("input[data-hide=truth]"); box.click();
            said.push(document.body.className, getComputedStyle(document.querySelector(".truth")).display);
            document.body.innerHTML = "<pre id=said>" + said.join(";") + "</pre>";
            </script></body>"""
        clicked = tmp_path / "clicked.html"
        clicked.write_text(page.read_text(encoding="utf-8").replace("</body>", script), encoding="utf-8")
        said = re.search(r'<pre id="said">([^<]*)</pre>', browse("--dump-dom", clicked.as_uri()))
        assert said is not None
        down, up, names, reverse, hidden, display = said[1].split(";")
        assert down.split(",")[:2] == ["i0", "i1"]
        assert set(down.split(",")[-2:]) == {"i10", "i11"}
        assert set(up.split(",")[:2]) == {"i10", "i11"}
        assert names.split(",") == [f"i{n}" for n in range(12)]
        assert reverse.split(",") == [f"i{n}" for n in reversed(range(12))]
        assert (hidden, display) == ("hide-truth", "none")


def test_names_are_shown_as_they_are_and_never_as_code(tmp_path: Path, save: Save, squares: Draw) -> None:
    odd = "<b>&x"
    for side in ("p", "t"):
        for name in ("one", "two"):
            save(f"{odd}/{side}/{name}.png", squares(1))
    (tmp_path / "i.csv").write_text("id,<i>day\none,1\ntwo,2\n")
    result = evaluate(
        tmp_path / odd / "p", tmp_path / odd / "t", index=tmp_path / "i.csv", group=("<i>day",), iou=0.7
    )
    write_report(tmp_path / "r.html", result)
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<i>day" not in html
    assert "By &lt;i&gt;day" in html
    assert odd not in html
    assert "&lt;b&gt;&amp;x" in html
    assert "0.7" in html[html.index("All images") :]

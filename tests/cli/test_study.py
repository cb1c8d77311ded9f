"""``nuxel study``, as a person runs it: what it prints, where it writes, its exit codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuxel.cli.main import main

RECIPE = """
system = "multihead_unet"
[[data.train]]
folder = "absent"
[network]
encoder = "plain"
weights = "none"
depth = 2
encoder_widths = [4, 4, 4]
decoder = "concat"
widths = [4, 4]
[schedule]
epochs = 1
steps_per_epoch = 1
batch = 2
crop = 32
workers = 0
"""

STUDY = """
title = "Squares"
tune = [{ folder = "absent" }]
test = [{ folder = "absent" }]
budget = [{ name = "small" }, { name = "paper", set = ["schedule.epochs=2"] }]
row = [
    { name = "broken", label = "Broken", recipe = "tiny.toml", set = CHANGES },
    { name = "sound", label = "Sound", recipe = "tiny.toml" },
]
[[table]]
title = "Both"
rows = [{ row = "broken", paper = 0.5 }, { row = "sound" }]
""".replace("CHANGES", '["network.encoder=vgg", "network.encoder_widths=[]"]')

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command on two rows, in a folder of its own, where the images are not where the recipe says."""
    folder = tmp_path / "squares"
    labels = np.zeros((40, 40), np.uint16)
    labels[8:20, 8:20] = 1
    for name, array in (("images", np.where(labels, 200, 20).astype(np.uint8)), ("labels", labels)):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / "data" / name / "a.png")
    folder.mkdir()
    (folder / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return ["study", "squares", "--data", "data"]


def refused(capsys: Capture, arguments: list[str]) -> str:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("nuxel study: ")
    assert said.err.count("\n") == 1
    return said.err


def test_a_broken_row_is_reported_and_the_other_finished(study: list[str], capsys: Capture) -> None:
    assert main(study) == 1
    said = capsys.readouterr()
    broken, sound = said.err.splitlines()
    assert broken.startswith("nuxel study: broken (seed 0): ")
    assert sound.startswith("nuxel study: sound (seed 0): mAP ")
    assert said.out.startswith("# Squares\n\nBudget `small`.\n")
    assert "| Broken | 0.500 | not run |" in said.out
    assert "| Sound |  | 0." in said.out
    out = Path("runs/squares")
    assert (out / "study.md").read_text(encoding="utf-8") == said.out
    assert [path.name[:12] for path in (out / "results").iterdir()] == ["sound-seed0-"]

    assert main([*study, "--only", "sound"]) == 0
    again = capsys.readouterr()
    assert again.err == ""
    assert "| Sound |  | 0." in again.out


def test_no_seeds_only_prints_the_tables(study: list[str], capsys: Capture, tmp_path: Path) -> None:
    assert main([*study, "--seeds", "0", "--budget", "paper", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.count("not run") == 2
    assert "Budget `paper`." in said.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["study", "absent"], "absent: not the folder of a study"),
        (["study", "squares"], "absent: no such folder of annotated images"),
        (["study", "squares", "--budget", "large"], "unknown name 'large'; known: small, paper"),
        (
            ["study", "squares", "--data", "data", "--only", "sond"],
            "unknown name 'sond'; did you mean sound?",
        ),
        (["study", "squares", "--seeds", "-1"], "--seeds must not be negative, got -1"),
        (
            ["study", "squares", "--data", "data", "--out", "data/images/a.png"],
            "the study's folder cannot be made",
        ),
    ],
)
@pytest.mark.usefixtures("study")
def test_what_cannot_start(capsys: Capture, arguments: list[str], words: str) -> None:
    assert words in refused(capsys, arguments)

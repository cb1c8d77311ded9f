"""The README's commands are those that .ci/run runs, and what it says of options and files is true."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nuxel.cli.main import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("sed")), reason="needs bash and sed")
@pytest.mark.parametrize("name", ["segment", "test"])
def test_ci_takes_its_commands_from_the_readme(name: str) -> None:
    variable = {"segment": "first_command", "test": "test_command"}[name]
    (assignment,) = re.findall(rf"^{variable}=.*$", CI, re.MULTILINE)
    taken = subprocess.run(
        ["bash", "-c", f'{assignment}; printf %s "${variable}"'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (written,) = re.findall(rf"<!-- command: {name} -->\n```sh\n(.*)\n```\n<!-- end -->", README)
    assert taken == written
    assert f'step "${variable}"' in CI
    assert written.startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_ci_runs_every_check() -> None:
    for check in ("ruff check", "ruff format --check", "mypy", "lint-imports"):
        assert f"step .venv/bin/{check}\n" in CI


def test_every_option_of_segment_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["segment", "--help"])
    offered = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help", "--out"}
    (table,) = re.findall(r"\| option of `segment`.*?\n\n", README, re.DOTALL)
    assert set(re.findall(r"--[a-z][a-z-]+", table)) == offered


@pytest.mark.parametrize(
    "page", ["README.md", "examples/README.md", "docs/architecture.md", "docs/model_file.md"]
)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        # the results are written by measuring, after everything else
        if not target.startswith(("https:", "docs/results/")):
            assert (path.parent / target).exists(), target


def test_the_python_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    exec(code, names)
    assert len(names["nuclei"]) > 0  # type: ignore[arg-type]


def test_the_examples_are_small_and_explained() -> None:
    explained = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    images = sorted((ROOT / "examples").glob("*.png"))
    assert len(images) == 6
    for image in images:
        assert image.stat().st_size < 100_000
        assert f"`{image.name}`" in explained


def test_the_card_is_documented() -> None:
    from dataclasses import fields

    from nuxel.predict.card import ModelCard

    page = (ROOT / "docs" / "model_file.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == {
        field.name for field in fields(ModelCard)
    }

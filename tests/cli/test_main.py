"""The command as a whole: verbs, exit codes, one sentence for each mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nuxel import __version__
from nuxel.cli.main import main
from nuxel.predict import self_test

Capture = pytest.CaptureFixture[str]
Save = Callable[..., Path]


def fails(capsys: Capture, arguments: list[object], code: int) -> str:
    """Run a command that must fail with one line on stderr and nothing on stdout; give the line."""
    assert main([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["info", "--help"], ["--version"]])
def test_help_is_no_error(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    assert capsys.readouterr().err == ""


def test_help_lists_every_verb(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    for verb in ("segment", "train", "export-model", "models", "info", "doctor"):
        assert f"\n    {verb}" in shown


def test_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"nuxel {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["segment"],
        ["segment", "a.png"],
        ["segment", "--out", "x"],
        ["segment", "a.png", "--out", "x", "--wrong"],
        ["segment", "a.png", "--out", "x", "--scale", "big"],
        ["segment", "a.png", "--out", "x", "--t", "one"],
        ["segment", "a.png", "--out", "x", "--device", "tpu"],
        ["info"],
    ],
)
def test_what_the_parser_refuses_exits_with_2(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().out == ""


class TestSegmentUsage:
    """Wrong usage: exit code 2, one sentence, and no output folder."""

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (["--threads", "0"], "threads must be a whole number of at least 1, got 0"),
            (["--threads", "-2"], "threads must be a whole number of at least 1, got -2"),
            (["--threshold", "0"], "the threshold must lie between 0 and 1, got 0.0"),
            (["--threshold", "1"], "the threshold must lie between 0 and 1, got 1.0"),
            (["--threshold", "nan"], "the threshold must lie between 0 and 1, got nan"),
            (["--min-area", "-1"], "the least area must not be negative, got -1"),
            (["--scale", "0"], "the scale must be a positive number, got 0.0"),
            (["--scale", "inf"], "the scale must be a positive number, got inf"),
            (["--diameter", "-3"], "the diameter must be a positive number, got -3.0"),
            (["--scale", "1", "--diameter", "9"], "give either the scale or the diameter, not both"),
            (["--tile-size", "0"], "the tile size must be positive, got 0"),
            (["--tile-size", "3"], "the tile size must be at least 16 pixels, got 3"),
            (["--pixel-size", "0"], "the pixel size must be a number of micrometres"),
            (["--z", "middle"], "z must be a plane's number or max, got 'middle'"),
            (["--model", "nothing"], "nothing: no such model; give a file or one of"),
        ],
    )
    def test_a_value_out_of_range(
        self,
        save_discs: Save,
        tmp_path: Path,
        toy_model: Path,
        capsys: Capture,
        options: list[str],
        sentence: str,
    ) -> None:
        given = options if "--model" in options else ["--model", toy_model, *options]
        line = fails(capsys, ["segment", save_discs("a.png"), "--out", tmp_path / "out", *given], 2)
        assert line.startswith(f"nuxel segment: {sentence}")
        assert not (tmp_path / "out").exists()

    def test_inputs_that_are_none(self, tmp_path: Path, toy_model: Path, capsys: Capture) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "texts").mkdir()
        (tmp_path / "texts" / "notes.txt").write_text("no image")
        for given in ("empty", "texts", "absent.png", "*.png", "absent/folder"):
            line = fails(
                capsys, ["segment", tmp_path / given, "--out", tmp_path / "out", "--model", toy_model], 2
            )
            assert line.startswith(f"nuxel segment: {tmp_path / given}: ")
        assert not (tmp_path / "out").exists()

    def test_two_inputs_with_one_output(
        self, save_discs: Save, tmp_path: Path, toy_model: Path, capsys: Capture
    ) -> None:
        one, two = save_discs("a.png"), save_discs("a.bmp")
        line = fails(capsys, ["segment", one, two, "--out", tmp_path / "out", "--model", toy_model], 2)
        assert str(one) in line
        assert str(two) in line
        assert not (tmp_path / "out").exists()

    def test_an_output_folder_that_is_a_file(
        self, save_discs: Save, tmp_path: Path, toy_model: Path, capsys: Capture
    ) -> None:
        (tmp_path / "out").write_text("in the way")
        line = fails(
            capsys, ["segment", save_discs("a.png"), "--out", tmp_path / "out", "--model", toy_model], 2
        )
        assert f"{tmp_path / 'out'}: the output folder cannot be written" in line
        assert (tmp_path / "out").read_text() == "in the way"


class TestBadModel:
    """A model file that cannot be used: exit code 1, the file's name, and no output folder."""

    def refused(self, capsys: Capture, image: Path, model: Path) -> str:
        out = image.parent / "out"
        line = fails(capsys, ["segment", image, "--out", out, "--model", model], 1)
        assert line.startswith(f"nuxel segment: {model}: ")
        assert not out.exists()
        return line

    def test_not_onnx(self, save_discs: Save, tmp_path: Path, capsys: Capture) -> None:
        (tmp_path / "text.onnx").write_text("no model")
        line = self.refused(capsys, save_discs("a.png"), tmp_path / "text.onnx")
        assert "not an ONNX model" in line

    def test_not_ours(self, save_discs: Save, make_toy_model: Save, capsys: Capture) -> None:
        assert "not one of nuxel's" in self.refused(
            capsys, save_discs("a.png"), make_toy_model(metadata=None)
        )

    def test_truncated(self, save_discs: Save, toy_model: Path, tmp_path: Path, capsys: Capture) -> None:
        (tmp_path / "cut.onnx").write_bytes(toy_model.read_bytes()[:300])
        assert "damaged" in self.refused(capsys, save_discs("a.png"), tmp_path / "cut.onnx")

    def test_newer(self, save_discs: Save, make_toy_model: Save, capsys: Capture) -> None:
        model = make_toy_model(format=7, nuxel_version="3.2.1")
        line = self.refused(capsys, save_discs("a.png"), model)
        assert "written by a newer nuxel (3.2.1, model format 7); upgrade nuxel to use it" in line


class TestInfo:
    def test_of_an_image(self, save_discs: Save, capsys: Capture) -> None:
        path = save_discs("a.png")
        assert main(["info", str(path)]) == 0
        held = json.loads(capsys.readouterr().out)
        assert (held["path"], held["format"], held["shape"]) == (str(path), "PNG", [96, 96])
        assert held["dtype"] == "uint8"

    def test_of_a_model(self, toy_model: Path, capsys: Capture) -> None:
        assert main(["info", str(toy_model)]) == 0
        held = json.loads(capsys.readouterr().out)
        assert held["title"] == "bright is nucleus"
        assert held["stride"] == 16
        assert len(held["sha256"]) == 64

    def test_of_a_model_of_another_name(self, toy_model: Path, tmp_path: Path, capsys: Capture) -> None:
        (tmp_path / "model.bin").write_bytes(toy_model.read_bytes())
        assert main(["info", str(tmp_path / "model.bin")]) == 0
        assert json.loads(capsys.readouterr().out)["title"] == "bright is nucleus"

    def test_of_a_model_that_ships(self, capsys: Capture) -> None:
        assert main(["info", "default"]) == 0
        held = json.loads(capsys.readouterr().out)
        assert Path(held["path"]).name == "default.onnx"
        assert held["decoder"] == "clumps"
        assert main(["info", "nowhere"]) == 1
        assert "nowhere: there is no such file" in capsys.readouterr().err

    def test_an_image_is_not_read_as_a_model(
        self, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A slide may be larger than the memory."""
        monkeypatch.setattr("nuxel.predict.model.Model", lambda *_, **__: pytest.fail("opened as a model"))
        (tmp_path / "a.svs").write_bytes(b"II*\0")
        assert "SVS" in fails(capsys, ["info", tmp_path / "a.svs"], 1)
        os.mkfifo(tmp_path / "pipe")
        assert "not a regular file" in fails(capsys, ["info", tmp_path / "pipe"], 1)

    def test_of_what_is_neither(self, tmp_path: Path, capsys: Capture) -> None:
        (tmp_path / "notes.png").write_text("hello")
        (tmp_path / "notes.onnx").write_text("hello")
        for name in ("notes.png", "notes.onnx", "absent.tif", "absent.onnx"):
            assert fails(capsys, ["info", tmp_path / name], 1).startswith(f"nuxel info: {tmp_path / name}")


def test_no_path_is_empty(capsys: Capture, save_discs: Save) -> None:
    """As of a shell variable that is not set: it would mean the folder where one is."""
    for verb in ("segment", "propagate", "train", "thin"):
        with pytest.raises(SystemExit) as refused:
            main([verb, str(save_discs("a.png")), "--out", ""])
        assert refused.value.code == 2
        assert "the path is empty" in capsys.readouterr().err


def test_models_lists_what_ships(capsys: Capture) -> None:
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("default  ")
    assert "MB" in shown


def test_models_shows_scores(toy_model: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nuxel.predict.model.shipped_models", lambda: {"toy": toy_model})
    assert main(["models"]) == 0
    assert capsys.readouterr().out == "toy  0.0 MB  bright is nucleus  (CC0)\n    AP: 0.500\n"


class TestDoctor:
    def test_a_sound_installation(self, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("nuxel.predict.self_test.self_test", lambda: None)
        assert main(["doctor"]) == 0
        shown = capsys.readouterr().out
        assert "self-test: passed" in shown
        assert f"nuxel {__version__}, Python 3." in shown
        providers = shown[shown.index("execution providers") :]
        assert "CPUExecutionProvider" in providers
        assert "runs\n" in providers
        assert "  onnxruntime  " in shown

    def test_what_is_missing_or_does_not_run(self, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("nuxel.predict.self_test.self_test", lambda: None)
        monkeypatch.setattr(
            "nuxel.predict.self_test.installed_packages", lambda: {"numpy": "2.0", "torch": None}
        )
        monkeypatch.setattr(
            "nuxel.predict.self_test.running_providers",
            lambda: {"One": None, "Two": "fell back to the processor"},
        )
        assert main(["doctor"]) == 0
        shown = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ["numpy", "2.0"] in shown
        assert ["torch", "not", "installed"] in shown
        assert ["One", "runs"] in shown
        assert ["Two", "fell", "back", "to", "the", "processor"] in shown

    def test_a_wrong_answer(self, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("nuxel.predict.self_test.self_test", lambda: "failed: 3 nuclei instead of 4")
        assert main(["doctor"]) == 1
        assert "self-test: failed: 3 nuclei instead of 4" in capsys.readouterr().out


def test_training_without_its_half_says_what_to_install(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {**self_test.installed_packages(), "torch": None, "timm": None}
    monkeypatch.setattr(self_test, "installed_packages", lambda: found)
    for arguments in (["train", "r.toml", "--out", "run"], ["export-model", "run", "--out", "m.onnx"]):
        line = fails(capsys, arguments, 2)
        assert "training needs torch, timm; install it with: pip install 'nuxel[train]'" in line


def test_a_reader_that_hangs_up_is_no_traceback() -> None:
    """As in ``nuxel models | head -0``."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "nuxel", "models"], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_interrupted(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nuxel.predict.model.shipped_models", interrupt)
    assert fails(capsys, ["models"], 1) == "nuxel models: interrupted\n"

"""What a command imports, seen from a fresh interpreter: help is instant, and predicting needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "numpy",
    "scipy",
    "skimage",
    "PIL",
    "tifffile",
    "imagecodecs",
    "onnxruntime",
    "rich",
    "torch",
    "lightning",
}
TRAINING = {"torch", "torchvision", "timm", "lightning", "onnx", "tensorboard", "nuxel.training", "nuxel.nn"}
EXAMPLE = Path(__file__).parents[2] / "examples" / "fluorescence_sparse.png"

REPORT = """
import json, sys
try:
    {code}
finally:
    print("\\n" + json.dumps(sorted(sys.modules)))
"""


def modules_after(code: str) -> set[str]:
    """Names of all modules that a fresh interpreter holds after running one statement."""
    command = [sys.executable, "-c", REPORT.format(code=code)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    return set(json.loads(shown.stdout.splitlines()[-1]))


def test_the_measure_itself_sees_an_import() -> None:
    assert "numpy" in modules_after("import numpy")


@pytest.mark.parametrize(
    "code",
    [
        "import nuxel",
        "from nuxel.cli.main import main; main(['--help'])",
        "from nuxel.cli.main import main; main(['segment', '--help'])",
        "from nuxel.cli.main import main; main(['--version'])",
    ],
)
def test_import_and_help_load_nothing_heavy(code: str) -> None:
    loaded = modules_after(code)
    assert "nuxel" in loaded
    assert not HEAVY & loaded
    assert len([name for name in loaded if name.startswith("nuxel")]) <= 6


@pytest.mark.parametrize("verb", ["segment", "doctor", "models"])
def test_predicting_never_imports_the_training_half(tmp_path: Path, verb: str) -> None:
    arguments = ["segment", str(EXAMPLE), "--out", str(tmp_path)] if verb == "segment" else [verb]
    loaded = modules_after(f"from nuxel.cli.main import main; main({arguments!r})")
    assert "onnxruntime" in loaded
    assert not TRAINING & loaded
    if verb == "segment":
        assert (tmp_path / "fluorescence_sparse_labels.tif").is_file()


def test_the_python_door_needs_no_torch_either() -> None:
    loaded = modules_after(f"import nuxel; nuxel.segment({str(EXAMPLE)!r})")
    assert "nuxel.predict.segment" in loaded
    assert not TRAINING & loaded


def test_the_package_exports_what_it_names() -> None:
    import nuxel

    assert all(getattr(nuxel, name) is not None for name in nuxel.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        nuxel.nothing  # noqa: B018

"""The doctor's questions: what is installed, what runs, and is the answer the stored one?"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from nuxel.export.label_tiff import write_labels
from nuxel.labels.read import read_labels
from nuxel.predict import self_test as module
from nuxel.predict.self_test import installed_packages, running_providers, self_test


def test_the_shipped_model_gives_the_stored_answer() -> None:
    assert self_test() is None


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the stored image and answer, to be spoilt."""
    for end in (".png", ".tif"):
        shutil.copy(module._STORED.with_suffix(end), tmp_path / f"self_test{end}")
    monkeypatch.setattr(module, "_STORED", tmp_path / "self_test")
    assert self_test() is None
    return tmp_path / "self_test.tif"


def test_a_nucleus_too_few(stored: Path) -> None:
    labels = read_labels(stored)
    labels[labels == labels.max()] = 0
    write_labels(stored, labels)
    count = int(labels.max())
    assert (self_test() or "").startswith(f"failed: {count + 1} nuclei instead of {count}, ")


def test_nuclei_in_other_places(stored: Path) -> None:
    labels = read_labels(stored)
    write_labels(stored, np.ascontiguousarray(np.roll(labels, 3, axis=1)))
    assert "pixels differ" in (self_test() or "")


def test_a_missing_answer(stored: Path) -> None:
    stored.unlink()
    assert (self_test() or "").startswith(f"failed: {stored}: ")


def test_a_damaged_model(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored.with_name("bad.onnx").write_bytes(b"no model")
    monkeypatch.setattr(module, "model_path", lambda _: stored.with_name("bad.onnx"))
    assert "not an ONNX model" in (self_test() or "")


def test_packages() -> None:
    found = installed_packages()
    assert found["numpy"] == np.__version__
    assert "torch" in found


def test_a_package_that_is_missing_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRAINING", ("no-such-package-anywhere",))
    assert installed_packages()["no-such-package-anywhere"] is None


def test_providers_that_run_and_that_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = ["CUDAExecutionProvider", "AzureExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(module.onnxruntime, "get_available_providers", lambda: offered)
    opened = module.Model

    def open_model(path: Path, device: str) -> module.Model:
        if device == "cuda":
            raise RuntimeError("no driver")
        return opened(path, device=device)

    monkeypatch.setattr(module, "Model", open_model)
    outcome = running_providers()
    assert outcome == {
        "CUDAExecutionProvider": "does not run: no driver",
        "AzureExecutionProvider": "not used by nuxel",
        "CPUExecutionProvider": None,
    }


def test_a_provider_that_silently_falls_back_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(module.onnxruntime, "get_available_providers", lambda: offered)
    opened = module.Model
    monkeypatch.setattr(module, "Model", lambda path, device: opened(path, device=device and "cpu"))
    assert running_providers() == {
        "CUDAExecutionProvider": "fell back to CPUExecutionProvider",
        "CPUExecutionProvider": None,
    }

"""Store what the shipped model finds in one small image, for ``nuxel doctor`` to compare with.

    python benchmarks/store_self_test.py [examples/fluorescence_large.png]

Run it after every change of the model, and look at the overlay it writes to ``out/`` before committing.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from nuxel.export.label_tiff import write_labels
from nuxel.export.overlay import write_overlay
from nuxel.image.normalise import normalise
from nuxel.image.read import read_image
from nuxel.predict.model import DEFAULT_MODEL, Model, model_path
from nuxel.predict.pipeline import Options, segment_normalised

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Store the answer of the self-test.")
    parser.add_argument("image", nargs="?", type=Path, default=ROOT / "examples" / "fluorescence_large.png")
    image = parser.parse_args().image
    model = Model(model_path(DEFAULT_MODEL), device="cpu")
    display = normalise(read_image(image).pixels)
    nuclei = segment_normalised(display, model, Options()).nuclei
    stored = model.path.parent / "self_test"
    shutil.copyfile(image, stored.with_suffix(".png"))
    write_labels(stored.with_suffix(".tif"), nuclei.labels)
    (ROOT / "out").mkdir(exist_ok=True)
    write_overlay(ROOT / "out" / "self_test_overlay.png", display, nuclei)
    print(f"{stored}: {len(nuclei)} nuclei of {model.card.title}, {model.sha256[:12]}")


if __name__ == "__main__":
    main()

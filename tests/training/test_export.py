"""The file that leaves the training half: the same network, and everything that predicting needs."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from nuxel import __version__
from nuxel.cli.main import main
from nuxel.data.dataset import Source, find_annotated
from nuxel.errors import NuxelError, UsageError
from nuxel.image.normalise import normalise
from nuxel.image.read import read_image
from nuxel.predict.card import FORMAT, METADATA_KEY
from nuxel.predict.model import Model
from nuxel.predict.pipeline import Options, segment_normalised
from nuxel.training.export import _refuse_other_file, export_module, export_run, load_run
from nuxel.training.module import TrainingModule
from nuxel.training.recipe import make_recipe
from nuxel.training.train import train
from nuxel.training.tune import tune_decoder
from nuxel.training.validate import TorchNetwork

EXAMPLES = Path(__file__).parents[2] / "examples"


def real_images() -> list[Path]:
    return sorted(EXAMPLES.glob("*.png"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run of thirty steps from ImageNet weights: enough to find bright nuclei."""
    raw = {
        "system": "multihead_unet",
        "about": {"title": "thirty steps", "training_data": "drawn discs", "licence": "CC0"},
        "data": {"train": [{"folder": str(data)}]},
        "network": {"widths": [16, 16, 16]},
        "decoder_rule": {"threshold": 0.45},
        "schedule": {
            "epochs": 1, "steps_per_epoch": 30, "batch": 4, "crop": 64, "warmup_steps": 5, "average_decay": 0.8,
            "workers": 0,
        },
        "augmentation": {"wide_p": 0.0},
    }  # fmt: skip
    out = tmp_path_factory.mktemp("export") / "run"
    train(make_recipe(raw), out)
    return out


@pytest.fixture(scope="module")
def module(run: Path) -> TrainingModule:
    return load_run(run)


@pytest.fixture(scope="module")
def model_file(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "sub" / "thirty.onnx"
    assert main(["export-model", str(run), "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def model(model_file: Path) -> Model:
    return Model(model_file, threads=1, device="cpu")


class TestSameNetwork:
    def compare(self, image: np.ndarray, module: TrainingModule, model: Model) -> tuple[int, int, int]:
        """Pixels, pixels that differ and nuclei of an image segmented by torch and by ONNX Runtime."""
        network = TorchNetwork(module, model.card)
        height, width = (-side % 16 for side in image.shape[:2])
        window = np.pad(image, ((0, height), (0, width), (0, 0)), mode="symmetric")
        assert np.abs(network(window) - model(window)).max() < 1e-4
        ours, theirs = (segment_normalised(image, n, Options()).nuclei for n in (network, model))
        assert len(ours) == len(theirs)
        assert ours.scores == pytest.approx(theirs.scores, abs=0.01)
        return image[..., 0].size, int((ours.labels != theirs.labels).sum()), len(ours)

    def test_on_real_images(self, module: TrainingModule, model: Model) -> None:
        if not real_images():
            pytest.skip("the examples folder is not here")
        found = [self.compare(normalise(read_image(p).pixels), module, model) for p in real_images()]
        pixels, differing, nuclei = np.sum(found, axis=0)
        assert differing <= pixels / 100_000
        assert nuclei > 20

    def test_on_drawn_images_of_any_shape(self, module: TrainingModule, model: Model, draw) -> None:
        image, labels = draw(160, 7, 12)
        for shape in ((160, 160), (160, 97), (33, 160), (1, 1)):
            pixels, differing, _ = self.compare(image[: shape[0], : shape[1]], module, model)
            assert differing <= pixels / 1000
        assert len(segment_normalised(image, model, Options()).nuclei) >= labels.max() / 2

    def test_the_weights_in_the_file_are_float32_and_free_of_normalisation_layers(
        self, model_file: Path
    ) -> None:
        graph = onnx.load(model_file).graph
        assert {tensor.data_type for tensor in graph.initializer if tensor.dims} <= {
            onnx.TensorProto.FLOAT, onnx.TensorProto.INT64,
        }  # fmt: skip
        operations = {node.op_type for node in graph.node}
        assert "BatchNormalization" not in operations
        assert not operations & {"GlobalAveragePool", "ReduceMean", "Shape", "If", "Loop"}

    def test_exporting_leaves_the_module_alone(self, module: TrainingModule, tmp_path: Path) -> None:
        module.train()
        before = {key: value.clone() for key, value in module.state_dict().items()}
        export_module(module, tmp_path / "m.onnx")
        assert module.training
        assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
        module.eval()

    def test_exporting_twice_gives_the_same_file(
        self, module: TrainingModule, model_file: Path, tmp_path: Path
    ) -> None:
        export_module(module, tmp_path / "again.onnx")
        assert (tmp_path / "again.onnx").read_bytes() == model_file.read_bytes()


class TestCard:
    def test_says_everything(self, model: Model) -> None:
        card = model.card
        assert (card.title, card.licence, card.training_data) == ("thirty steps", "CC0", "drawn discs")
        assert (card.system, card.decoder, card.context) == ("multihead_unet", "clumps", "local")
        assert card.maps == ("nucleus", "shrunk", "touching", "log_diameter")
        assert card.decoder_rule["threshold"] == 0.45
        assert card.stride == 16
        assert card.reach == 217
        assert card.nuxel_version == __version__
        assert card.scores == {}

    def test_scores_are_kept(self, module: TrainingModule, tmp_path: Path) -> None:
        export_module(module, tmp_path / "m.onnx", {"mAP on val": 0.5})
        assert Model(tmp_path / "m.onnx", threads=1).card.scores == {"mAP on val": 0.5}

    def test_tuned_parameters_and_their_score_are_in_the_file(
        self, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tuned = shutil.copytree(run, tmp_path / "run")
        record = json.loads((tuned / "recipe.json").read_text())
        record["data"]["val"] = [{"folder": str(data), "include": ["a"]}]
        (tuned / "recipe.json").write_text(json.dumps(record))
        assert main(["export-model", str(tuned), "--out", str(tmp_path / "m.onnx"), "--tune"]) == 0
        card = Model(tmp_path / "m.onnx", threads=1).card
        found = find_annotated(Source(str(data), include=("a",)))
        rule, score = tune_decoder(Model(tmp_path / "m.onnx", threads=1), found)
        assert dataclasses.asdict(rule) == card.decoder_rule  # nothing better near it
        assert card.scores == {"val mAP": pytest.approx(score, abs=1e-4)}
        assert "mAP on the validation images" in capsys.readouterr().out

    def test_what_stands_there_stays_if_tuning_fails(self, run: Path, data: Path, tmp_path: Path) -> None:
        tuned = shutil.copytree(run, tmp_path / "run")
        record = json.loads((tuned / "recipe.json").read_text())
        odd = shutil.copytree(data, tmp_path / "odd")
        Image.fromarray(np.zeros((9, 9), np.uint16)).save(odd / "labels" / "a.png")
        record["data"]["val"] = [{"folder": str(odd)}]
        (tuned / "recipe.json").write_text(json.dumps(record))
        export_run(run, tmp_path / "m.onnx")
        before = (tmp_path / "m.onnx").read_bytes()
        with pytest.raises(NuxelError, match="labels are"):
            export_run(tuned, tmp_path / "m.onnx", tune=True)
        assert (tmp_path / "m.onnx").read_bytes() == before

    @pytest.mark.parametrize("text", ["{", "[]", "{}"])
    def test_a_damaged_record(self, run: Path, tmp_path: Path, text: str) -> None:
        damaged = shutil.copytree(run, tmp_path / "run")
        (damaged / "recipe.json").write_text(text)
        with pytest.raises(NuxelError, match=r"recipe\.json: the recipe of the run is damaged"):
            export_run(damaged, tmp_path / "m.onnx")

    def test_nothing_to_tune_on(self, run: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"no \[\[data.val\]\] images"):
            export_run(run, tmp_path / "m.onnx", tune=True)
        assert not (tmp_path / "m.onnx").exists()

    def test_is_one_json_text_in_the_metadata(self, model_file: Path) -> None:
        (entry,) = onnx.load(model_file).metadata_props
        assert entry.key == METADATA_KEY
        assert json.loads(entry.value)["format"] == FORMAT

    def test_says_nothing_of_the_machine(self, model_file: Path) -> None:
        content = model_file.read_bytes()
        assert str(Path(__file__).parents[2]).encode() not in content
        assert str(model_file.parent).encode() not in content


def test_the_file_needs_nothing_else(model_file: Path, tmp_path: Path) -> None:
    """Alone in a folder, it is enough for a process that cannot import torch."""
    alone = Path(shutil.copy(model_file, tmp_path / "alone.onnx"))
    assert [path.name for path in model_file.parent.iterdir()] == [model_file.name]
    script = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'timm', 'lightning', 'onnx')))\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "import numpy, nuxel\n"
        f"image = numpy.zeros((64, 64), numpy.uint8); image[20:40, 20:40] = 200\n"
        f"print(nuxel.segment(image, model={str(alone)!r}).labels.shape)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "(64, 64)\n", done.stderr


class TestRefused:
    def test_a_folder_that_holds_no_run(self, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        assert main(["export-model", str(tmp_path), "--out", str(tmp_path / "m.onnx")]) == 2
        said = capsys.readouterr().err
        assert "no run with a finished epoch" in said
        assert said.count("\n") == 1
        assert not (tmp_path / "m.onnx").exists()

    def test_a_damaged_checkpoint(self, run: Path, tmp_path: Path) -> None:
        copy = tmp_path / "run"
        (copy / "checkpoints").mkdir(parents=True)
        shutil.copy(run / "recipe.json", copy)
        whole = (run / "checkpoints" / "last.ckpt").read_bytes()
        (copy / "checkpoints" / "last.ckpt").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(NuxelError, match=r"last\.ckpt: the checkpoint is damaged"):
            load_run(copy)

    def test_a_checkpoint_of_another_network(self, run: Path, tmp_path: Path) -> None:
        copy = tmp_path / "run"
        shutil.copytree(run, copy)
        raw = json.loads((copy / "recipe.json").read_text())
        raw["network"]["widths"] = [8, 8, 8]
        (copy / "recipe.json").write_text(json.dumps(raw))
        with pytest.raises(NuxelError, match="does not fit its recipe"):
            load_run(copy)

    def test_where_nothing_can_be_written(self, run: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(NuxelError):
            export_module(load_run(run), tmp_path / "file" / "m.onnx")


def test_only_model_files_are_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"thesis\.txt: exists already, and is no model file of nuxel"):
        export_run(run, tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    for _ in range(2):
        export_run(run, tmp_path / "m.onnx")


def test_a_run_without_a_finished_epoch_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected recipe\.json and checkpoints/last\.ckpt"):
        load_run(tmp_path)


def test_a_folder_is_no_name_for_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder; name the model file to write"):
        _refuse_other_file(tmp_path)

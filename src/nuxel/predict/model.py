"""A model file, opened: the network behind ONNX Runtime and its card."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import resources
from numbers import Integral
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from nuxel.decode.detections import DetectionRule, Detections
from nuxel.errors import NuxelError, UsageError
from nuxel.predict.card import METADATA_KEY, ModelCard, read_card
from nuxel.predict.cpu import available_cpus
from nuxel.predict.detect import attention_output
from nuxel.predict.graph_file import part_of
from nuxel.predict.networks import Ensemble, NamedNetwork
from nuxel.predict.stages import IMAGE, LARGEST_TILE, Stage, as_input, run_stages
from nuxel.tiling.grid import Box, crop

DEFAULT_MODEL = "default"
_MOST_THREADS = 1024
"""More only make each other wait, and tens of thousands take minutes to start."""
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Model:
    """A trained network, its card and the hash that names it.

    Parameters
    ----------
    path
        A model file that :mod:`nuxel.training.export` wrote.
    threads
        Processors to use; all that are available when None.
    device
        ``"auto"`` (a GPU if ONNX Runtime has one), ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    NuxelError
        If the file is missing, not ONNX, truncated, not nuxel's, or from a newer nuxel.
    UsageError
        If the device is not there, or the number of threads is none.
    """

    def __init__(self, path: Path | str, *, threads: int | None = None, device: str = "auto") -> None:
        self.path = Path(path)
        threads = checked_threads(threads)
        providers = _providers(device)
        content = _read(self.path)
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.threads = threads or available_cpus()
        self._providers = providers
        self._session = self._open(content)
        if device != "auto" and self.provider != providers[0]:
            raise UsageError(
                f"device {device}: ONNX Runtime could not start {providers[0]} and fell back to {self.provider}; "
                "nuxel doctor says what runs"
            )
        self._keep, self._release = onnxruntime.RunOptions(), onnxruntime.RunOptions()
        if self.provider == _PROVIDERS["cpu"]:  # decoding needs the memory that a large window leaves behind
            self._release.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.card: ModelCard = read_card(metadata.get(METADATA_KEY), str(self.path))
        self._content = content if self.card.stages else b""
        self._stages: list[onnxruntime.InferenceSession] = []

    def _open(self, content: bytes) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.enable_mem_pattern = False
        # Threads that wait in a loop slow each other down wherever processors are shared.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        _share_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
        try:
            return onnxruntime.InferenceSession(content, options, providers=self._providers)
        except Exception as error:  # ONNX Runtime has no common base for its errors
            raise NuxelError(
                f"{self.path}: not an ONNX model, or a damaged one ({_first_line(error)})"
            ) from None

    def __call__(self, window: NDArray[np.uint8], inner: Box | None = None) -> NDArray[np.float32]:
        """The network's maps of one window, or of its inner part.

        Parameters
        ----------
        window
            ``(H, W, 3)`` uint8, a normalised image; H and W multiples of the card's stride.
        inner
            The pixels whose maps are asked for, multiples of the stride; all of them when None.

        Returns
        -------
        ``(K, h, w)`` float32, the maps that the card names.
        """
        if self.card.stages and window.shape[0] * window.shape[1] > LARGEST_TILE:
            inner = inner or (0, 0, *window.shape[:2])
            return run_stages(window, inner, self.card.stages, self.card.stride, self._run_stage)
        return crop(self._run(None, window)[0][0], inner)

    def release(self) -> None:
        """Give back the memory that stages keep for the next window of an image: what follows needs it."""
        if self._stages:
            side = self.card.stride
            self._session.run(None, {IMAGE: np.zeros((1, 3, side, side), np.float32)}, self._release)

    def detect(self, window: NDArray[np.uint8]) -> Detections:
        """What a network that detects reports of one window, ``(H, W, 3)`` uint8 of the card's size."""
        boxes, scores, masks = self._run(list(DetectionRule().maps), window)
        # a runtime's sigmoid may overshoot by its last digit
        return Detections(boxes, np.clip(scores, 0, 1), np.clip(masks, 0, 1))

    def attend(self, window: NDArray[np.uint8], level: int) -> NDArray[np.float32]:
        """The attention coefficients of a pyramid level in one window: ``(h, w)`` float32 in ``[0, 1]``, one a cell.

        Raises
        ------
        UsageError
            If the network has no attention at that level.
        """
        return np.clip(self.map_of(window, attention_output(self.card, level)), 0, 1)

    def map_of(self, window: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
        """One of the outputs that the card names, of one window: ``(h, w)`` float32."""
        values: NDArray[np.float32] = self._run([name], window)[0][0]
        return values

    def _run(self, names: list[str] | None, window: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        small = window.shape[0] * window.shape[1] <= LARGEST_TILE  # as much is kept as stages keep for a tile
        feeds = {IMAGE: as_input(window.transpose(2, 0, 1)[None])}
        return _answers(self._session, names, feeds, self._keep if small else self._release)

    def _run_stage(
        self, place: int, seen: Mapping[str, NDArray[np.float32]]
    ) -> Sequence[NDArray[np.float32]]:
        if not self._stages:  # opened when an image is large enough to need them
            self._stages = [self._open(self._part(stage)) for stage in self.card.stages]
        return _answers(self._stages[place], None, dict(seen), self._keep)

    def _part(self, stage: Stage) -> bytes:
        try:
            return part_of(self._content, stage.reads, stage.gives)
        except NuxelError as error:
            raise NuxelError(f"{self.path}: the stages of its card are not its graph's ({error})") from None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def provider(self) -> str:
        """The execution provider that runs the network."""
        name: str = self._session.get_providers()[0]
        return name


@cache
def _share_memory() -> None:
    """One pool of memory for all networks and stages of a process: what one is done with serves the next."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    default = dict.fromkeys(
        ("arena_extend_strategy", "initial_chunk_size_bytes", "max_dead_bytes_per_chunk"), -1
    )
    # where somebody else has registered one, that is used
    with suppress(Exception):
        onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({"max_mem": 0, **default}))


def _answers(
    session: onnxruntime.InferenceSession,
    names: list[str] | None,
    feeds: dict[str, NDArray[np.float32]],
    how: onnxruntime.RunOptions,
) -> list[NDArray[np.float32]]:
    try:
        outputs: list[NDArray[np.float32]] = session.run(names, feeds, how)
    # ONNX Runtime has errors of its own for each status, none of them named in its interface
    except Exception as error:
        text = _first_line(error)
        if "alloc" in text:
            raise NuxelError(
                "not enough memory for the network; give a smaller tile size (--tile-size)"
            ) from error
        raise NuxelError(f"the network cannot be run ({text})") from error
    return outputs


def open_models(
    paths: Sequence[Path | str], *, threads: int | None = None, device: str = "auto"
) -> NamedNetwork:
    """One model, or the mean of several; see :class:`Model` and :class:`nuxel.predict.networks.Ensemble`.

    Raises
    ------
    NuxelError
        If a file cannot be used.
    UsageError
        If no model is given, the device is not there, or the models do not go together.
    """
    if not paths:
        raise UsageError("no model was given")
    models = [Model(path, threads=threads, device=device) for path in paths]
    return models[0] if len(models) == 1 else Ensemble(models)


def model_path(name: str) -> Path:
    """The file of a model that ships with nuxel, or the file that ``name`` itself is.

    Raises
    ------
    UsageError
        If it is neither.
    """
    shipped = shipped_models()
    if name in shipped:
        return shipped[name]
    path = Path(name)
    if not name or not os.path.exists(path):  # which, unlike the method of a path, raises nothing
        raise UsageError(
            f"{name or 'an empty name'}: no such model; give a file or one of {', '.join(shipped)}"
        )
    if path.is_dir():
        raise UsageError(
            f"{name}: is a folder and no model file; nuxel export-model makes one of a training run"
        )
    return path


onnxruntime.disable_telemetry_events()  # where the environment does not decide it: see nuxel.__init__


def checked_threads(threads: object) -> int | None:
    """A number of threads as an int; None, for as many as the machine grants, stays.

    Raises
    ------
    UsageError
        If it is neither None nor a whole number of at least 1.
    """
    if threads is None:
        return None
    if isinstance(threads, bool) or not isinstance(threads, Integral) or int(threads) < 1:
        raise UsageError(f"threads must be a whole number of at least 1, got {threads!r}")
    if int(threads) > _MOST_THREADS:
        raise UsageError(f"threads must be at most {_MOST_THREADS}, got {threads}")
    return int(threads)


def shipped_models() -> dict[str, Path]:
    """The models inside the package by name."""
    folder = Path(str(resources.files("nuxel.predict"))) / "models"
    return {path.stem: path for path in sorted(folder.glob("*.onnx"))}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NuxelError(f"{path}: the model cannot be read ({error.strerror})") from None


def _providers(device: str) -> list[str]:
    present = onnxruntime.get_available_providers()
    if device == "auto":
        return [name for name in (_PROVIDERS["cuda"], _PROVIDERS["cpu"]) if name in present]
    if device not in _PROVIDERS:
        raise UsageError(f"device must be auto, cpu or cuda, got {device}")
    if _PROVIDERS[device] not in present:
        raise UsageError(
            f"device {device}: this ONNX Runtime has only {', '.join(present)}; install onnxruntime-gpu"
        )
    return [_PROVIDERS[device]]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__

"""What several verbs share: options, warnings as sentences, what training needs, and how a verb ends when told to."""

from __future__ import annotations

import argparse
import contextlib
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from nuxel.errors import UsageError

if TYPE_CHECKING:
    from nuxel.image.read import Reading
    from nuxel.predict.pipeline import Options


def path_given(text: str) -> Path:
    """The path; an empty one, as of a shell variable that is not set, would mean the folder where one is."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def add_reading(parser: argparse.ArgumentParser) -> None:
    """What to read of each file: see :func:`reading_of`."""
    parser.add_argument("--channel", metavar="NAME|N", help="channel that shows the nuclei")
    parser.add_argument("--z", metavar="N|max", help="plane of a z-stack, or its maximum projection")
    parser.add_argument("--t", type=int, metavar="N", help="time point")
    parser.add_argument(
        "--pixel-size", type=float, metavar="UM", help="micrometres per pixel, in place of what the file says"
    )


def reading_of(options: argparse.Namespace) -> Reading:
    from nuxel.image.choose import read_z
    from nuxel.image.read import Reading

    z = None if options.z is None else read_z(options.z)
    return Reading(options.channel, z, options.t, options.pixel_size)


def add_finding(parser: argparse.ArgumentParser) -> None:
    """How nuclei are found: see :func:`finding_of`."""
    parser.add_argument(
        "--scale", type=float, metavar="X", help="run the network at this scale (default: estimated)"
    )
    parser.add_argument(
        "--diameter", type=float, metavar="PX", help="diameter of the nuclei (default: estimated)"
    )
    parser.add_argument("--threshold", type=float, metavar="X", help="least nucleus probability, 0 to 1")
    parser.add_argument(
        "--min-area", type=int, metavar="PX", help="drop smaller nuclei, in place of what the model drops"
    )


def finding_of(options: argparse.Namespace, **more: Any) -> Options:
    from nuxel.predict.pipeline import Options

    return Options(
        threshold=options.threshold,
        min_area=options.min_area,
        scale=options.scale,
        diameter=options.diameter,
        **more,
    )


def add_running(parser: argparse.ArgumentParser) -> None:
    """Where the network runs: ``threads`` and ``device``."""
    parser.add_argument("--threads", type=int, metavar="N", help="processors to use (default: all available)")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the network runs"
    )


@contextlib.contextmanager
def tidy_end() -> Iterator[None]:
    """A process that is told to end in this block does so as by an exception: nothing half-written stays.

    It is told so by SIGTERM, by SIGHUP when its terminal is closed, and by SIGBREAK on Windows.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone may say what signals do
        yield
        return

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    wanted = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
    # what is ignored stays so: nohup ignores the end of the terminal
    before = {
        number: signal.signal(number, end) for number in wanted if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def warnings_told(tell: Callable[[str], None]) -> Iterator[None]:
    """While active, warnings are sentences for the user, without the place in the code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: tell(str(message))
        yield


def require_training(what: str = "training") -> None:
    """Make sure that the training half, which ``what`` needs, is installed.

    Raises
    ------
    UsageError
        If it is not.
    """
    from nuxel.predict.self_test import TRAINING, installed_packages

    installed = installed_packages()
    if missing := [name for name in TRAINING if installed[name] is None]:
        raise UsageError(f"{what} needs {', '.join(missing)}; install it with: pip install 'nuxel[train]'")

"""Warnings of libraries that no user needs: errors tell what matters."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LIBRARIES = r"(PIL|tifffile|imagecodecs|skimage|scipy|nuxel\.(image|labels|decode))\b"
"""Some of what they warn of they ascribe to the room that called them."""

_lock = threading.Lock()
_inside = 0
_filters = warnings.catch_warnings()


@contextmanager
def silenced() -> Iterator[None]:
    """Keep warnings of the libraries that read and decode images off the user's screen in this block.

    Unlike ``warnings.catch_warnings`` it may be used in several threads at once, each of which would else put back the
    filters of another. All other warnings pass.
    """
    global _inside, _filters
    with _lock:
        if not _inside:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.filterwarnings("ignore", module=_LIBRARIES)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _filters.__exit__(None, None, None)

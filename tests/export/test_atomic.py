import errno
import os
import subprocess
import sys

import pytest

from nuxel.errors import NuxelError
from nuxel.export.atomic import replacing


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_when_the_block_has_ended(tmp_path):
    path = tmp_path / "result.txt"
    with replacing(path) as part:
        part.write_text("new")
        assert not path.exists()
        assert part.parent == tmp_path
    assert path.read_text() == "new"
    assert names(tmp_path) == ["result.txt"]


def test_what_was_there_stays_until_its_successor_is_complete(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with replacing(str(path)) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError("odd"), KeyboardInterrupt()])
def test_an_error_leaves_neither_file_nor_change(tmp_path, error):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def fail():
        with replacing(path) as part:
            part.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_a_full_disk_is_one_sentence(tmp_path):
    path = tmp_path / "result.txt"

    def fill_the_disk():
        with replacing(path) as part:
            part.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(NuxelError, match=r"result\.txt: cannot be written \(No space left on device\); free"):
        fill_the_disk()
    assert names(tmp_path) == []


def test_an_error_without_a_number_still_has_a_reason(tmp_path):
    def fail():
        with replacing(tmp_path / "result.txt"):
            raise OSError("the encoder gave up")

    with pytest.raises(NuxelError, match="the encoder gave up"):
        fail()


def test_a_missing_folder_is_one_sentence(tmp_path):
    def write():
        with replacing(tmp_path / "nowhere" / "result.txt") as part:
            part.write_text("new")

    with pytest.raises(NuxelError, match=r"nowhere.*No such file or directory"):
        write()


def test_a_folder_in_the_way_is_one_sentence(tmp_path):
    (tmp_path / "result.txt").mkdir()

    def write():
        with replacing(tmp_path / "result.txt") as part:
            part.write_text("new")

    with pytest.raises(NuxelError, match="directory"):
        write()
    assert names(tmp_path) == ["result.txt"]


def test_names_as_long_as_the_system_takes(tmp_path):
    path = tmp_path / ("n" * 251 + ".txt")
    with replacing(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"


def test_two_at_once_do_not_meet(tmp_path):
    path = tmp_path / "result.txt"
    with replacing(path) as one, replacing(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"


def test_a_killed_run_leaves_nothing_under_the_final_name(tmp_path):
    script = f"""
import os, signal
from nuxel.export.atomic import replacing
with replacing({str(tmp_path / "labels.tif")!r}) as part:
    part.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, env={**os.environ})
    assert done.returncode == -9
    assert len(names(tmp_path)) == 1
    assert names(tmp_path)[0].endswith(".part")

import errno
import os
import re
import subprocess
import sys

import pytest

from nuxel.errors import NuxelError, UsageError
from nuxel.export import atomic
from nuxel.export.atomic import make_output_folder, replacing, replacing_together


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


def three(folder, content):
    paths = [folder / name for name in ("sum", "a", "b")]
    for path in paths:
        path.write_text(content)
    return paths


class TestTogether:
    def test_all_take_their_names_once_the_block_has_ended(self, tmp_path):
        paths = three(tmp_path, "old")
        with replacing_together(paths) as parts:
            for part in parts:
                part.write_text("new")
            assert [path.read_text() for path in paths] == ["old"] * 3
        assert [path.read_text() for path in paths] == ["new"] * 3
        assert names(tmp_path) == ["a", "b", "sum"]

    def test_where_nothing_was_before(self, tmp_path):
        with replacing_together([tmp_path / "sum", tmp_path / "a"]) as parts:
            for part in parts:
                part.write_text("new")
        assert names(tmp_path) == ["a", "sum"]

    def test_an_error_changes_nothing(self, tmp_path):
        paths = three(tmp_path, "old")

        def fail():
            with replacing_together(paths) as parts:
                parts[1].write_text("new")
                raise ValueError("odd")

        with pytest.raises(ValueError, match="odd"):
            fail()
        assert [path.read_text() for path in paths] == ["old"] * 3
        assert names(tmp_path) == ["a", "b", "sum"]

    @pytest.mark.parametrize("refused", range(6))
    def test_all_stay_if_the_system_refuses_one(self, tmp_path, monkeypatch, refused):
        """As Windows refuses to replace a table that a spreadsheet has open."""
        paths, calls, replace = three(tmp_path, "old"), [], os.replace

        def refuse(source, target):
            calls.append(target)
            if len(calls) == refused + 1:
                raise PermissionError(errno.EACCES, "Permission denied", str(target))
            replace(source, target)

        def attempt():
            with replacing_together(paths) as parts:
                for part in parts:
                    part.write_text("new")

        monkeypatch.setattr(atomic.os, "replace", refuse)
        with pytest.raises(
            NuxelError, match=r"cannot be written .Permission denied.; free space, close it in other"
        ):
            attempt()
        assert [path.read_text() for path in paths] == ["old"] * 3
        assert names(tmp_path) == ["a", "b", "sum"]

    def test_nothing_is_lost_even_if_a_file_cannot_go_back(self, tmp_path, monkeypatch):
        paths, replace = three(tmp_path, "old"), os.replace

        def refuse(source, target):
            if target == paths[1]:
                raise PermissionError(errno.EACCES, "Permission denied", str(target))
            replace(source, target)

        def attempt():
            with replacing_together(paths) as parts:
                for part in parts:
                    part.write_text("new")

        monkeypatch.setattr(atomic.os, "replace", refuse)
        with pytest.raises(NuxelError, match="a: cannot be written"):
            attempt()
        assert paths[0].read_text() == paths[2].read_text() == "old"
        (aside,) = set(tmp_path.iterdir()) - set(paths)
        assert aside.read_text() == "old"

    def test_where_nothing_was_nothing_stays(self, tmp_path, monkeypatch):
        paths, replace = [tmp_path / "sum", tmp_path / "a"], os.replace

        def refuse(source, target):
            if target == paths[0]:
                raise OSError(errno.ENOSPC, "No space left on device", str(target))
            replace(source, target)

        def attempt():
            with replacing_together(paths) as parts:
                for part in parts:
                    part.write_text("new")

        monkeypatch.setattr(atomic.os, "replace", refuse)
        with pytest.raises(NuxelError, match="sum: cannot be written"):
            attempt()
        assert names(tmp_path) == []

    def test_an_error_of_a_part_names_its_file(self, tmp_path):
        def attempt():
            with replacing_together([tmp_path / "sum", tmp_path / "a"]) as (_, part), replacing(part):
                raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.raises(NuxelError, match=rf"^{re.escape(str(tmp_path / 'a'))}: cannot be written"):
            attempt()

    def test_a_folder_in_the_way_stays(self, tmp_path):
        paths = three(tmp_path, "old")
        paths[1].unlink()
        paths[1].mkdir()

        def attempt():
            with replacing_together(paths) as parts:
                for part in parts:
                    part.write_text("new")

        with pytest.raises(NuxelError, match=r"a: cannot be written \(Is a directory\)"):
            attempt()
        assert paths[0].read_text() == paths[2].read_text() == "old"
        assert names(tmp_path) == ["a", "b", "sum"]

    def test_the_first_goes_first_and_comes_last(self, tmp_path, monkeypatch):
        paths, moves, replace = three(tmp_path, "old"), [], os.replace

        def record(source, target):
            moves.append((source.name, target.name))
            replace(source, target)

        monkeypatch.setattr(atomic.os, "replace", record)
        with replacing_together(paths) as parts:
            for part in parts:
                part.write_text("new")
        assert moves[0][0] == "sum"
        assert moves[-1][1] == "sum"


def test_a_folder_for_results_is_made_and_left_empty(tmp_path):
    make_output_folder(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UsageError, match=r"file: the output folder cannot be written .*choose another with --out"
    ):
        make_output_folder(tmp_path / "file")


def test_a_folder_that_cannot_be_written_in_is_found_out_before(tmp_path, monkeypatch):
    def deny(self, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(type(tmp_path), "open", deny)
    with pytest.raises(UsageError, match=r"cannot be written \(Permission denied\)"):
        make_output_folder(tmp_path)

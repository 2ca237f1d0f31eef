import os
from pathlib import Path

import pytest

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.files import check_writable_file, check_writable_folder, replace_atomically


def test_the_old_file_stands_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")

    def write_half() -> None:
        with replace_atomically(path) as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_has_the_usual_mode(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with replace_atomically(tmp_path / "out") as stream:
            stream.write(b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(UsageError, match=r"--run .*file/run: the folder cannot be written to"):
        check_writable_folder(blocker / "run", "--run")
    with pytest.raises(UsageError, match="is a folder; name a file"):
        check_writable_file(tmp_path, "--out")


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/null"), tmp_path / "pipe"):
        with pytest.raises(UsageError, match=f"^--out {path}: is a device or a pipe; name a file$"):
            check_writable_file(path, "--out")


def test_through_a_link_the_file_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "data.json", tmp_path / "out.json"
    link.symlink_to(target)
    check_writable_file(link, "--out")
    for text in (b"new", b"newer"):  # first of a link to what is not there yet
        with replace_atomically(link) as stream:
            stream.write(text)
        assert (link.is_symlink(), target.read_bytes()) == (True, text)
    assert list(target.parent.iterdir()) == [target]

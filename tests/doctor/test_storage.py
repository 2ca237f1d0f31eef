import resource
import subprocess
import sys
from pathlib import Path

import pytest

from selfinstruct_local.doctor import storage

CHECK = (
    "import sys; from pathlib import Path; from selfinstruct_local.doctor import storage\n"
    "for check in sys.argv[2:]:\n"
    "    finding = getattr(storage, check)(Path(sys.argv[1])); print(finding.status, finding.detail)"
)


def in_small_mount(folder: Path, options: str, *checks: str) -> list[str]:
    """What the checks say of a folder on a file system of its own in memory."""
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "t", folder], check=False).returncode != 0:
        pytest.skip("no disk was mounted: this machine lets a test mount no file system (unshare -rm)")
    script = (
        f'mount -t tmpfs -o {options} tmpfs {folder} && exec {sys.executable} -c "$CODE" {folder} {" ".join(checks)}'
    )
    done = subprocess.run(
        ["unshare", "-rm", "env", f"CODE={CHECK}", "sh", "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_a_folder_on_this_disk_commits_and_nothing_is_left(tmp_path: Path) -> None:
    assert storage.check_folder(tmp_path).status == "ok"
    finding = storage.check_sqlite(tmp_path)
    assert finding.status in {"ok", "warn"}
    assert "WAL, synchronous=FULL" in finding.detail
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_is_judged_by_the_one_above_and_not_made(tmp_path: Path) -> None:
    out = tmp_path / "new" / "run"
    finding = storage.check_folder(out)
    assert (finding.status, storage.existing_folder(out)) == ("ok", tmp_path)
    assert str(out) in finding.detail
    assert not out.parent.exists()


def test_a_file_in_the_way_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        finding = storage.check_folder(out)
        assert finding.status == "fail"
        assert f"{tmp_path / 'file'} is a file" in finding.detail


def test_a_file_system_that_is_read_only_fails(tmp_path: Path) -> None:
    out, sqlite = in_small_mount(tmp_path, "ro", "check_folder", "check_sqlite")
    assert out == f"fail --out {tmp_path}: the folder cannot be written to (read-only file system)"
    assert sqlite.startswith("fail")


def test_a_full_disk_fails(tmp_path: Path) -> None:
    disk, sqlite = in_small_mount(tmp_path, "size=64k", "check_disk", "check_sqlite")
    assert disk.startswith("fail 0.0 GiB free")
    assert sqlite == f"fail {tmp_path}: database or disk is full"


def test_a_limit_on_the_size_of_files_fails(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHECK, tmp_path, "check_sqlite"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(f"fail {tmp_path}: ")


def test_a_disk_that_is_slow_to_sync_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MIN_COMMITS", 1e9)
    finding = storage.check_sqlite(tmp_path)
    assert finding.status == "warn"
    assert "commits/s" in finding.detail


def test_the_file_system_is_that_of_the_innermost_and_latest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "20 1 254:0 / / rw - ext4 /dev/vda rw\n"
        "21 20 0:40 / /data rw,relatime shared:7 - xfs /dev/vdb rw\n"
        "22 20 0:41 / /data rw,relatime shared:7 master:1 - nfs4 server:/data rw\n"
        "23 20 0:42 / /home/my\\040runs rw - fuse.sshfs host: rw\n"
        "24 20 0:43 / /database rw - tmpfs tmpfs rw\n"
    )
    folders = ("/", "/data", "/data/runs", "/database", "/databases", "/home/my runs/one", "/home/my")
    kinds = [storage.file_system(Path(folder), mounts) for folder in folders]
    assert kinds == ["ext4", "nfs4", "nfs4", "tmpfs", "ext4", "fuse.sshfs", "ext4"]
    found = [storage.check_file_system(Path("/x"), kind).status for kind in kinds]
    assert found == ["ok", "warn", "warn", "warn", "ok", "warn", "ok"]


def test_the_real_mounts_of_this_machine_are_read() -> None:
    assert storage.file_system(Path("/proc")) == "proc"
    assert storage.file_system(storage.existing_folder(Path()))

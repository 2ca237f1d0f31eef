import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfinstruct_local.doctor import hardware
from selfinstruct_local.doctor.hardware import GIB, Card, Driver, Torch

H100 = Card("NVIDIA H100", 80 * GIB, 79 * GIB, (9, 0), (7, 5))


def nvidia_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a program of that name first on the PATH."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def statuses(driver: Driver | None, torch: Torch) -> dict[str, str]:
    return {each.check: each.status for each in hardware.check_gpus(driver, torch)}


def test_without_a_gpu_it_is_said_what_works_and_what_does_not() -> None:
    (finding,) = hardware.check_gpus(None, Torch("2.13.0+cpu"))
    assert finding.status == "warn"
    assert "filter" in finding.detail
    assert "7B" in finding.detail


def test_a_card_that_this_cpu_build_of_torch_cannot_use_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = hardware.read_torch()
    if torch.cuda or torch.fault or not torch.version:
        pytest.skip("a CPU build beside a GPU was not tried: it needs a CPU build of torch, which is missing")
    nvidia_smi(tmp_path, "echo '580.1, NVIDIA H200'; echo '580.1, NVIDIA H200'", monkeypatch)
    driver = hardware.read_driver()
    assert driver == Driver("580.1", ("NVIDIA H200", "NVIDIA H200"))
    found = {each.check: each for each in hardware.check_gpus(driver, torch)}
    assert found["driver"].status == "ok"
    assert found["gpu"].status == "fail"
    assert torch.version in found["gpu"].detail
    assert "CUDA" in found["gpu"].mend


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'No devices were found'; exit 6", "No devices were found"),
        ("echo 'NVIDIA-SMI has failed because it could not reach the driver' >&2; exit 9", "NVIDIA-SMI has failed"),
        ("exit 3", "code 3"),
        ("exec sleep 20", "1 s"),
    ],
)
def test_a_driver_that_does_not_answer_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    monkeypatch.setattr(hardware, "DRIVER_SECONDS", 1.0)
    nvidia_smi(tmp_path, script, monkeypatch)
    finding = next(iter(hardware.check_gpus(hardware.read_driver(), Torch("2.13.0+cpu"))))
    assert (finding.check, finding.status) == ("driver", "fail")
    assert said in finding.detail


def test_a_program_that_cannot_be_started_is_no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, "", monkeypatch)
    (tmp_path / "nvidia-smi").write_text("#!/no/such/shell\n")
    driver = hardware.read_driver()
    assert driver is not None
    assert "cannot be started" in driver.fault


def test_torch_that_sees_no_card_or_breaks_fails() -> None:
    driver = Driver("580.1", ("NVIDIA H200",))
    assert statuses(driver, Torch("2.13.0", "13.0")) == {"driver": "ok", "gpu": "fail"}
    assert statuses(driver, Torch("2.13.0", "13.0", fault="CUDA error: unknown")) == {"driver": "ok", "gpu": "fail"}
    assert statuses(driver, Torch()) == {"driver": "ok", "gpu": "warn"}
    assert statuses(driver, Torch("2.13.0", "13.0", (H100,))) == {"driver": "ok", "gpu 0": "ok"}


def test_a_torch_that_cannot_be_imported_is_a_fault_and_none_is_none(tmp_path: Path) -> None:
    code = (
        "from selfinstruct_local.doctor.hardware import read_torch; t = read_torch(); print(repr((t.version, t.fault)))"
    )
    said = []
    for text in ("import no_such_module", "raise OSError('libcudart.so.13: cannot open shared object file')"):
        (tmp_path / "torch.py").write_text(text)
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}"]
        said.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert "torch needs no_such_module" in said[0]
    assert "libcudart.so.13" in said[1]
    command = [sys.executable, "-c", f"import sys; sys.modules['torch'] = None\n{code}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "('', '')"


@pytest.mark.parametrize(
    ("card", "status", "said"),
    [
        (H100, "ok", "80.0 GiB"),
        (Card("Tesla P100", 16 * GIB, 16 * GIB, (6, 0), (7, 5)), "fail", "7.5"),
        (Card("Tesla T4", 15 * GIB, 15 * GIB, (7, 5), (7, 5)), "warn", "no bfloat16"),
        (Card("NVIDIA A100", 80 * GIB, 40 * GIB, (8, 0), (7, 5)), "warn", "90%"),
    ],
)
def test_a_card_is_judged_by_age_and_free_memory(card: Card, status: str, said: str) -> None:
    finding = hardware.judge_card(0, card)
    assert finding.status == status
    assert said in finding.detail


def test_memory_is_the_least_of_what_kernel_and_control_group_give(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    proc.mkdir()
    groups.mkdir()
    (proc / "meminfo").write_text(
        "MemTotal:       65536000 kB\nMemAvailable:   33554432 kB\nHugePages_Total:       0\n"
    )
    assert hardware.read_memory(proc, groups) == 32 * GIB
    (groups / "memory.max").write_text("max\n")
    (groups / "memory.current").write_text(f"{6 * GIB}\n")
    (groups / "memory.stat").write_text(f"anon 7\ninactive_file {2 * GIB}\n")
    assert hardware.read_memory(proc, groups) == 32 * GIB
    (groups / "memory.max").write_text(f"{7 * GIB}\n")
    assert hardware.read_memory(proc, groups) == 3 * GIB
    assert hardware.check_memory(3 * GIB).status == "warn"
    assert hardware.check_memory(5 * GIB).detail.startswith("5.0 GiB")


def test_too_little_shared_memory_is_told_and_none_fails(tmp_path: Path) -> None:
    assert hardware.check_shared_memory(tmp_path / "shm").status == "fail"
    script = (
        f"mount -t tmpfs -o size=64m tmpfs {tmp_path} && {sys.executable} -c 'from pathlib import Path\n"
        "from selfinstruct_local.doctor.hardware import check_shared_memory as check\n"
        f'print(check(Path("{tmp_path}")).status)\''
    )
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "t", tmp_path], check=False).returncode != 0:
        pytest.skip("no small /dev/shm was tried: this machine lets a test mount no file system (unshare -rm)")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "warn"


def test_a_low_hard_limit_of_open_files_is_told() -> None:
    code = "from selfinstruct_local.doctor import hardware; f = hardware.check_open_files(); print(f.status, f.mend)"
    command = ["sh", "-c", f"ulimit -n 512; exec {sys.executable} -c '{code}'"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith("warn")
    assert "--in-flight below 384" in said

"""The wheel carries what the program needs, and works outside the checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_is_whole(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    source = tmp_path / "source"
    # A copy, so that building leaves nothing in the checkout.
    folders = ("kernels", "prompts", "requirements", "seeds", "selfinstruct_local")
    names = ("pyproject.toml", "README.md", "LICENSE", *folders)
    source.mkdir()
    subprocess.run(["cp", "-r", *(ROOT / name for name in names), source], check=True)
    subprocess.run([*build, "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("selfinstruct_local-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    for package in ("selfinstruct_local", "kernels", "prompts", "seeds"):
        inside = "" if package == "selfinstruct_local" else f"{package}/"
        for path in (ROOT / package).rglob("*"):
            if path.suffix in {".py", ".txt", ".jsonl", ".typed", ".html", ".css", ".js"}:
                relative = path.relative_to(ROOT / package).as_posix()
                assert f"selfinstruct_local/{inside}{relative}" in packed
    assert {"selfinstruct_local/requirements/cpu.txt", "selfinstruct_local/requirements/gpu.txt"} <= packed

    code = (
        "import selfinstruct_local, selfinstruct_local.seeds as s, selfinstruct_local.prompts as p\n"
        "from selfinstruct_local.kernels import NoveltyIndex\n"
        "print(selfinstruct_local.__file__, s.seed_file().is_file(), len(p.load_prompt('alpaca').template) > 100)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {[str(tmp_path / 'site'), *sys.path]}\n{code}"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(tmp_path / "site/selfinstruct_local/__init__.py"), "True", "True"]

"""The kernel cache: private, per user, never hostile, silent on import; and what the core may import."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from selfinstruct_local.kernels import cache

USE = "from selfinstruct_local.kernels import rouge_l; assert rouge_l('a b', 'a c') == 0.5"


def run(code: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh Python with that home folder and temporary folder."""
    temporary = home / "tmp"
    temporary.mkdir(exist_ok=True)
    names = {"HOME": str(home), "TMPDIR": str(temporary), **environment}
    inherited = {k: v for k, v in os.environ.items() if k not in ("XDG_CACHE_HOME", "SELFINSTRUCT_CACHE")}
    return subprocess.run(
        [sys.executable, "-c", code], env=inherited | names, capture_output=True, text=True, timeout=300, check=False
    )


def test_compiles_once_says_so_once_and_keeps_it_private(home: Path) -> None:
    quiet = run("import selfinstruct_local.kernels", home)
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert not (home / ".cache").exists()
    first, second = run(USE, home), run(USE, home)
    assert first.returncode == second.returncode == 0
    assert first.stderr.count("compiling the similarity kernels") == 1
    assert str(home / ".cache" / "selfinstruct-local") in first.stderr
    assert second.stderr == ""
    assert (home / ".cache" / "selfinstruct-local" / "kernels").stat().st_mode & 0o777 == 0o700


def test_another_source_is_not_served_from_the_cache(home: Path) -> None:
    assert run(USE, home).returncode == 0
    stale = run("from selfinstruct_local.kernels import cache; cache._source_stamp = lambda: 'other'\n" + USE, home)
    assert "compiling" in stale.stderr


def test_damaged_cache_files_are_compiled_afresh(home: Path) -> None:
    assert run(USE, home).returncode == 0
    files = list((home / ".cache").rglob("*.nb[ci]"))
    assert files
    for path in files:
        path.write_bytes(b"\x80\x04garbage")
    again = run(USE, home)
    assert (again.returncode, again.stderr.count("compiling")) == (0, 1)


@pytest.mark.parametrize("hostile", ["link", "open", "file"])
def test_a_hostile_folder_is_passed_over(home: Path, hostile: str) -> None:
    folder = home / ".cache" / "selfinstruct-local" / "kernels"
    folder.parent.mkdir(parents=True)
    if hostile == "link":
        (home / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(home / "elsewhere")
    elif hostile == "open":
        folder.mkdir()
        folder.chmod(0o777)
    else:
        folder.write_text("")
    done = run(USE, home)
    assert done.returncode == 0, done.stderr
    assert str(home / "tmp" / f"selfinstruct-local-{os.getuid()}") in done.stderr
    if hostile == "link":
        assert list((home / "elsewhere").iterdir()) == []


def test_no_folder_at_all_still_answers(home: Path) -> None:
    """Read-only home and temporary folder: files stand where the folders would be, since root may write anywhere."""
    (home / ".cache").write_text("")
    (home / "tmp").mkdir()
    (home / "tmp" / f"selfinstruct-local-{os.getuid()}").write_text("")
    done = run(USE, home)
    assert done.returncode == 0, done.stderr
    assert "no private cache folder" in done.stderr


def test_explicit_folder_first(home: Path) -> None:
    done = run(USE, home, SELFINSTRUCT_CACHE=str(home / "mine"), XDG_CACHE_HOME=str(home / "xdg"))
    assert str(home / "mine" / "kernels") in done.stderr
    relative = run(USE, home, SELFINSTRUCT_CACHE="runs", XDG_CACHE_HOME=str(home / "xdg"))
    assert str(home / "xdg" / "selfinstruct-local" / "kernels") in relative.stderr


def test_foreign_owner_is_not_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "x"
    folder.mkdir(mode=0o700)
    assert cache.is_private(folder)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    assert not cache.is_private(folder)


def test_a_read_only_install_works(home: Path, tmp_path: Path) -> None:
    package = tmp_path / "site" / "selfinstruct_local"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    shutil.copytree(Path(cache.__file__).parent, package / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (package / "kernels", package):
        path.chmod(0o555)
    code = f"import sys; sys.dont_write_bytecode = True; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]; sys.path.insert(0, {str(package.parent)!r})\nimport selfinstruct_local.kernels as k; assert k.__file__.startswith({str(package)!r}), k.__file__\n"  # noqa: E501
    done = run(code + USE, home)
    for path in (package, package / "kernels"):
        path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert not (package / "kernels" / "__pycache__").exists()


def test_the_core_imports_nothing_of_the_rest(home: Path) -> None:
    code = (
        "import sys, selfinstruct_local.kernels\n"
        "rest = [m for m in sys.modules if m.startswith('selfinstruct_local.') and '.kernels' not in m]\n"
        "heavy = {'torch', 'transformers', 'pydantic', 'typer', 'rouge_score', 'rapidfuzz'} & sys.modules.keys()\n"
        "assert not rest and not heavy, (rest, heavy)"
    )
    done = run(code, home)
    assert done.returncode == 0, done.stderr

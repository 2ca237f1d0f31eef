import os
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.files import checksum
from selfinstruct_local.models import (
    EMBEDDED_NAME,
    ModelFolder,
    build,
    check_model_folder,
    find_model,
    prepare_embedded,
    prepare_gguf,
    prepare_pickle,
)
from selfinstruct_local.models.folder import MANIFEST, prepared_models
from tests.conftest import RunCli


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def test_the_embedded_model_is_prepared_once(embedded_model: ModelFolder) -> None:
    assert embedded_model.architecture == "LlamaForCausalLM"
    stamp = (embedded_model.path / MANIFEST).stat().st_mtime_ns
    assert prepare_embedded() == embedded_model
    assert (embedded_model.path / MANIFEST).stat().st_mtime_ns == stamp
    assert EMBEDDED_NAME in prepared_models()
    manifest = orjson.loads((embedded_model.path / MANIFEST).read_bytes())
    assert "model.safetensors" in manifest["files"]


def test_pickle_weights_become_safetensors(bare_model: Path, cache: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    (bare_model / "model.safetensors").unlink()
    shared = torch.arange(6, dtype=torch.float16).reshape(2, 3)
    torch.save({"a": shared, "b": shared.T}, bare_model / "pytorch_model-00001-of-00002.bin")
    torch.save({"c": torch.ones(2)}, bare_model / "pytorch_model-00002-of-00002.bin")

    folder = prepare_pickle(bare_model)
    assert folder.path == cache / "bare-model"
    tensors = load_file(folder.path / "model-00001-of-00002.safetensors")
    assert tensors["a"].dtype == torch.float16
    assert torch.equal(tensors["a"], shared)
    assert torch.equal(tensors["b"], shared.T)
    assert find_model("bare-model") == folder
    index = orjson.loads((folder.path / "model.safetensors.index.json").read_bytes())
    assert index["weight_map"]["c"] == "model-00002-of-00002.safetensors"


SHARDS = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")


@pytest.fixture
def pickled_model(bare_model: Path) -> Path:
    """A folder with two shards of pickle weights and their index."""
    torch = pytest.importorskip("torch")
    (bare_model / "model.safetensors").unlink()
    for number, name in enumerate(SHARDS):
        torch.save({f"layer.{number}": torch.full((100, 100), float(number))}, bare_model / name)
    weight_map = {f"layer.{number}": name for number, name in enumerate(SHARDS)}
    (bare_model / "pytorch_model.bin.index.json").write_bytes(orjson.dumps({"weight_map": weight_map}))
    return bare_model


def refusal(folder: Path, name: str | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        prepare_pickle(folder, name)
    return str(caught.value)


def test_a_missing_shard_of_pickles_is_named(pickled_model: Path, cache: Path) -> None:
    (pickled_model / SHARDS[1]).unlink()
    missing = refusal(pickled_model)
    assert missing.startswith(f"SOURCE {pickled_model}: 1 weight file(s) of the index are missing, ")
    assert SHARDS[1] in missing
    (pickled_model / "pytorch_model.bin.index.json").unlink()
    assert "1 of 2 weight files" in refusal(pickled_model)
    assert not cache.exists()


def test_the_files_of_the_index_are_those_converted(pickled_model: Path, cache: Path) -> None:
    (pickled_model / "pytorch_model-old.bin").write_bytes(b"left over from a download")
    folder = prepare_pickle(pickled_model)
    assert [file.name for file in folder.weight_files] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert folder.path.parent == cache


def test_the_same_source_again_is_the_prepared_model(
    pickled_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare_pickle(pickled_model)
    copied = shutil.copytree(pickled_model, cache.parent / "copy" / pickled_model.name)
    assert prepare_pickle(copied) == folder
    # Files that are those of the manifest by inode and time are not read through again.
    monkeypatch.delattr(build, "checksum")
    assert prepare_pickle(pickled_model) == folder


def test_another_model_of_the_same_name_is_refused(pickled_model: Path, cache: Path) -> None:
    torch = pytest.importorskip("torch")
    folder = prepare_pickle(pickled_model)
    other = shutil.copytree(pickled_model, cache.parent / "other" / pickled_model.name)
    torch.save({"layer.1": torch.full((100, 100), 7.0)}, other / SHARDS[1])
    os.utime(other / SHARDS[1], ns=(0, (pickled_model / SHARDS[1]).stat().st_mtime_ns))
    assert (other / SHARDS[1]).stat().st_size == (pickled_model / SHARDS[1]).stat().st_size
    message = refusal(other)
    assert message.startswith(f"{folder.path}: ")
    assert all(each in message for each in (f"({SHARDS[1]} differs); ", "--name", str(other)))
    assert prepare_pickle(other, "other").path == cache / "other"
    (pickled_model / "tokenizer.json").write_text('{"version": "1.0"}')
    assert "another model (tokenizer.json differs)" in refusal(pickled_model)
    (pickled_model / "tokenizer.json").unlink()
    assert "another model (tokenizer.json differs)" in refusal(pickled_model)


def test_another_gguf_of_the_same_name_is_refused(bare_model: Path, cache: Path, tmp_path: Path) -> None:
    """The manifest here is of an earlier release, which noted the first source alone."""
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF one")
    facts = {"source": gguf.name, "source_sha256": checksum(gguf), "files": {}}
    (bare_model / MANIFEST).write_bytes(orjson.dumps(facts))
    shutil.copytree(bare_model, cache / "model")
    assert prepare_gguf(gguf, "model").path == cache / "model"
    gguf.write_bytes(b"GGUF two")
    with pytest.raises(UsageError, match=r"another model \(model.gguf differs\)"):
        prepare_gguf(gguf, "model")


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20_000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def older_and_torn(path: Path) -> None:
    import torch

    torch.save({"layer.0": torch.ones(100, 100)}, path, _use_new_zipfile_serialization=False)
    torn(path)


def of_a_training(path: Path) -> None:
    import torch

    torch.save({"state_dict": {"layer.0": torch.ones(2)}}, path)


def a_list(path: Path) -> None:
    import torch

    torch.save([torch.ones(2)], path)


def a_page(path: Path) -> None:
    path.write_text("<html>Not found</html>")


def a_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 25600\n")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (torn, "truncated or corrupt; copy it again"),
        (older_and_torn, "truncated or corrupt; copy it again"),
        (empty, "truncated or corrupt; copy it again"),
        (of_a_training, "not a dict of tensors ('state_dict' "),
        (a_list, "not a dict of tensors (a list "),
        (a_page, "not PyTorch weights; copy it again"),
        (a_pointer, "a Git LFS pointer, not the file itself; run 'git lfs pull'"),
        (a_folder, "cannot be read (is a directory)"),
    ],
)
def test_a_bad_pickle_is_one_clear_error(
    harm: Callable[[Path], None], said: str, pickled_model: Path, cache: Path
) -> None:
    harm(pickled_model / SHARDS[0])
    assert refusal(pickled_model).startswith(f"{pickled_model / SHARDS[0]}: {said}")
    assert not list(cache.glob("*"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", '{"auto_map": {"AutoModel": "evil.Model"}}', "auto_map"),
        ("config.json", "{}", "names no architecture"),
        ("config.json", None, "no config.json"),
        ("tokenizer.json", None, "no tokenizer"),
    ],
)
def test_what_lies_beside_the_weights_is_checked_before_they_are_read(
    name: str, content: str | None, said: str, pickled_model: Path, cache: Path
) -> None:
    torn(pickled_model / SHARDS[0])
    (pickled_model / name).unlink()
    if content is not None:
        (pickled_model / name).write_text(content)
    message = refusal(pickled_model)
    assert message.startswith(f"SOURCE {pickled_model}: ")
    assert said in message
    assert not list(cache.glob("*"))


def test_what_is_no_model_after_all_does_not_stay(bare_model: Path, cache: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.json: .+: no config\.json"):
        build.build_folder("mine", [bare_model / "config.json"], lambda _target: None, check_model_folder)
    assert not list(cache.glob("*"))


def test_a_gguf_that_cannot_be_read_is_one_clear_error(tmp_path: Path, cache: Path) -> None:
    pytest.importorskip("gguf")
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(UsageError, match=r"model\.gguf: cannot be converted"):
        prepare_gguf(gguf, "model")
    a_pointer(gguf)
    with pytest.raises(UsageError, match="Git LFS"):
        prepare_gguf(gguf, "model")
    assert not list(cache.glob("*"))


def test_a_bad_folder_is_listed_with_its_reason_among_the_others(bare_model: Path, cache: Path, cli: RunCli) -> None:
    (bare_model / MANIFEST).write_text("{}")
    shutil.copytree(bare_model, cache / "good")
    (bare_model / "tokenizer.json").unlink()
    shutil.copytree(bare_model, cache / "bad")
    done = cli("models", "list")
    assert (done.returncode, done.stderr) == (0, "")
    bad, good = done.stdout.splitlines()
    assert bad.startswith("bad\tno tokenizer")
    assert good.startswith("good\tLlamaForCausalLM")
    rows = [orjson.loads(line) for line in cli("models", "list", "--json").stdout.splitlines()]
    assert [(row["name"], "error" in row) for row in rows] == [("bad", True), ("good", False)]


def test_two_processes_that_make_one_name_end_with_one_model(pickled_model: Path, cache: Path, cli: RunCli) -> None:
    """Fault 50: the second to finish finds the folder of the first in its place."""
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: cli("models", "prepare", pickled_model), range(3)))
    assert [(each.returncode, each.stdout.strip()) for each in done] == [(0, str(cache / pickled_model.name))] * 3
    assert [path.name for path in cache.iterdir()] == [pickled_model.name]


def test_a_folder_that_appears_meanwhile_is_the_same_or_another_model(pickled_model: Path, cache: Path) -> None:
    """Fault 50, with the other process at the worst moment."""

    def while_the_other_finishes(source: Path) -> Callable[[Path], None]:
        def convert(target: Path) -> None:
            prepare_pickle(source, "raced")
            shutil.copytree(cache / "raced", target, dirs_exist_ok=True)

        return convert

    same = [pickled_model / SHARDS[0], pickled_model / SHARDS[1]]
    same += [pickled_model / name for name in ("config.json", "tokenizer.json")]
    made = build.build_folder("raced", same, while_the_other_finishes(pickled_model), check_model_folder)
    assert made == cache / "raced"
    shutil.rmtree(cache / "raced")
    with pytest.raises(UsageError, match="another model"):
        build.build_folder("raced", same[:2], while_the_other_finishes(pickled_model), check_model_folder)


@pytest.mark.parametrize(("mask", "mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_what_is_prepared_obeys_the_umask(
    pickled_model: Path, cache: Path, mask: int, mode: int, folder_mode: int
) -> None:
    before = os.umask(mask)
    try:
        made = prepare_pickle(pickled_model)
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in made.path.iterdir()} == dict.fromkeys(
        (path.name for path in made.path.iterdir()), mode
    )
    assert made.path.stat().st_mode & 0o777 == folder_mode
    assert cache.is_dir()


class Evil:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_holds_code_is_refused_and_not_run(bare_model: Path, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (bare_model / "model.safetensors").unlink()
    (bare_model / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil(tmp_path / "ran")}))
    with pytest.raises(UsageError, match="more than tensors"):
        prepare_pickle(bare_model)
    assert not (tmp_path / "ran").exists()
    assert not list(cache.glob("*"))


def test_bad_sources_and_names_are_refused(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        prepare_gguf(tmp_path / "none.gguf", "x")
    with pytest.raises(UsageError, match=r"no pytorch_model\*\.bin"):
        prepare_pickle(tmp_path)
    weights = tmp_path / "pytorch_model.bin"
    weights.write_bytes(b"")
    for name in ("..", "a/b"):
        with pytest.raises(UsageError, match="not a model name"):
            prepare_pickle(tmp_path, name)
    (cache / "mine").mkdir(parents=True)
    with pytest.raises(UsageError, match="without a manifest"):
        prepare_pickle(tmp_path, "mine")

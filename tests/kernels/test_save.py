"""Save and load: the same answers afterwards; anything else is refused."""

from pathlib import Path

import numpy as np
import pytest

from selfinstruct_local.kernels import NoveltyIndex
from tests.kernels import oracles


@pytest.mark.parametrize("prefilter", ["exact", "minhash", "none"])
def test_a_loaded_index_goes_on_as_the_saved_one(tmp_path: Path, prefilter: str) -> None:
    texts = [" ".join(row) + " é 中" for row in oracles.near_copies(8, 900)]
    index = NoveltyIndex(0.65, prefilter, "unicode", seed=3)  # type: ignore[arg-type]
    index.filter(texts[:600])
    index.save(tmp_path / "pool.index")
    loaded = NoveltyIndex.load(tmp_path / "pool.index", threshold=0.65, tokenizer="unicode")
    assert (loaded.threshold, loaded.prefilter, loaded.tokenizer, loaded.seed) == (0.65, prefilter, "unicode", 3)
    assert len(loaded) == len(index)
    assert loaded.scores(texts[700]).tolist() == index.scores(texts[700]).tolist()
    for a, b in zip(loaded.filter(texts[600:]), index.filter(texts[600:]), strict=True):
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    assert [path.name for path in tmp_path.iterdir()] == ["pool.index"]


def test_empty_index(tmp_path: Path) -> None:
    NoveltyIndex().save(tmp_path / "x")
    assert len(NoveltyIndex.load(tmp_path / "x")) == 0


def test_other_settings_are_refused(tmp_path: Path) -> None:
    NoveltyIndex(0.7).save(tmp_path / "x")
    with pytest.raises(ValueError, match=r"saved with threshold=0\.7, not 0\.8"):
        NoveltyIndex.load(tmp_path / "x", threshold=0.8)


def test_damage_is_refused(tmp_path: Path) -> None:
    index = NoveltyIndex()
    index.add(["a b c d", "e f g h i"])
    path = tmp_path / "x"
    index.save(path)
    whole = path.read_bytes()
    (tmp_path / "torn").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text").write_text("not an archive")
    (tmp_path / "empty").write_bytes(b"")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    (tmp_path / "flipped").write_bytes(bytes(flipped))
    for name in ("torn", "text", "empty"):
        with pytest.raises(ValueError, match="not a saved index"):
            NoveltyIndex.load(tmp_path / name)
    with pytest.raises(ValueError, match=r"not a saved index|damaged"):
        NoveltyIndex.load(tmp_path / "flipped")
    with pytest.raises(FileNotFoundError):
        NoveltyIndex.load(tmp_path / "missing")


def rewrite(path: Path, **changes: np.ndarray) -> None:
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    with path.open("wb") as file:
        np.savez(file, **(arrays | changes))


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    index = NoveltyIndex()
    index.add(["a b c d", "a e"])
    path = tmp_path / "x"
    for changes in (
        {"ids": np.array([0, 1, 2, 99, 0, 1], np.int32)},
        {"ids": np.array([0, 1, 2, -1, 0, 1], np.int32)},
        {"offsets": np.array([0, 9, 6])},
        {"offsets": np.array([0, 4, 5])},
        {"ids": np.zeros(6, np.int64)},
        {"token_bytes": np.frombuffer(b"aacde", np.uint8)},
        {"token_bytes": np.frombuffer(b"a cde", np.uint8)},
    ):
        index.save(path)
        rewrite(path, **changes)
        with pytest.raises(ValueError, match="damaged"):
            NoveltyIndex.load(path)


def test_pickles_are_never_read(tmp_path: Path) -> None:
    index = NoveltyIndex()
    path = tmp_path / "x"
    index.save(path)
    rewrite(path, ids=np.array([{"evil": 1}], object))
    with pytest.raises(ValueError, match="not a saved index"):
        NoveltyIndex.load(path)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    NoveltyIndex().save(path)
    rewrite(path, settings=np.frombuffer(b'{"format": "selfinstruct-novelty-index", "version": 99}', np.uint8))
    with pytest.raises(ValueError, match="format version 99"):
        NoveltyIndex.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    index = NoveltyIndex()
    with pytest.raises(FileNotFoundError):
        index.save(tmp_path / "no folder" / "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        index.save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]

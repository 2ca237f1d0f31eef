"""`NoveltyIndex`: decides which texts are new and finds the nearest ones, by ROUGE-L exactly as in `rouge_score`."""

import json
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray

from . import bounds
from .index import BandIndex, FilterResult, NoIndex, PrefixIndex, SharedIndex, State
from .scan import Scanner, top
from .tokenize import Encoded, encode
from .vocabulary import TokenizerName, Vocabulary

PrefilterName = Literal["exact", "minhash", "none", "auto"]
PREFILTERS: tuple[str, ...] = get_args(PrefilterName)

#: Default random seed of the MinHash permutations.
DEFAULT_SEED = 1
#: Default target recall of MinHash for a pair just above the threshold.
DEFAULT_RECALL = 0.999

_FORMAT = "selfinstruct-novelty-index"
_VERSION = 1
#: Inner bin edges of the scores in a recall report.
RECALL_BINS = (0.75, 0.85)
# Pairs scored at a time when recall is measured: 32 MB of scores.
_RECALL_PAIRS = 1 << 22


class Recall(NamedTuple):
    """The number of pairs above the threshold with a score in (low, high], and how many the prefilter found."""

    low: float
    high: float
    pairs: int
    found: int


def _check_settings(threshold: object, prefilter: object, recall: object) -> None:
    if not isinstance(threshold, int | float | np.floating) or isinstance(threshold, bool) or not 0 < threshold <= 1:
        message = f"threshold must be a number in (0, 1], not {threshold!r}"  # NaN fails the comparison
        raise ValueError(message)
    if prefilter not in PREFILTERS:
        message = f"prefilter must be one of {', '.join(PREFILTERS)}, not {prefilter!r}"
        raise ValueError(message)
    if not isinstance(recall, int | float | np.floating) or not 0 < recall < 1:
        message = f"recall must be a number in (0, 1), not {recall!r}"
        raise ValueError(message)


class NoveltyIndex:
    """A growing pool of texts that rejects near copies.

    A text is rejected if its ROUGE-L F with any text of the pool is above `threshold`, in the float64 arithmetic of
    google's `rouge_score` (no stemmer). Positions count the texts of the pool from 0, in the order in which they were
    added. Not thread-safe.

    Args:
        threshold: in (0, 1]; Self-Instruct and Alpaca use 0.7. A text whose score equals it is kept.
        prefilter: `exact` (prefix index, loses no pair), `minhash` (banded hashing, finds at least `recall` of the
            pairs), `none` (scores every pair), `auto` (the fastest one measured: `exact`, up to a million texts).
        tokenizer: `rouge` or `unicode`, see `encode`.
        recall: target recall of `minhash` for a pair just above the threshold, in (0, 1).
        seed: random seed of the MinHash permutations.
        lsh_storage: `storage_config` (for example for Redis) of a datasketch `MinHashLSH` that holds the bands of
            `minhash` instead of the compiled table: much slower, but other processes can use it too.

    Attributes:
        silent: number of texts passed to `add` and `filter` so far that are not blank but have no token, so that they
            are near no other text.

    Raises:
        ValueError: if a setting is out of its range.
    """

    def __init__(
        self,
        threshold: float = 0.7,
        prefilter: PrefilterName = "exact",
        tokenizer: TokenizerName = "rouge",
        recall: float = DEFAULT_RECALL,
        seed: int = DEFAULT_SEED,
        lsh_storage: dict[str, Any] | None = None,
    ) -> None:
        _check_settings(threshold, prefilter, recall)
        self.threshold = float(threshold)
        self.prefilter = prefilter
        self.recall = float(recall)
        self.seed = seed
        self.silent = 0
        self.vocabulary = Vocabulary(tokenizer)
        self._foreign: tuple[Vocabulary, NDArray[np.int32]] | None = None
        self._state = State(self.threshold)
        self._scanner = Scanner(threads=1)
        self._index: PrefixIndex | BandIndex | SharedIndex | NoIndex
        if prefilter == "minhash" and lsh_storage is not None:
            self._index = SharedIndex(self.threshold, self.recall, seed, lsh_storage)
        elif prefilter == "minhash":
            self._index = BandIndex(self.threshold, self.recall, seed)
        else:
            self._index = NoIndex() if prefilter == "none" else PrefixIndex()

    @property
    def tokenizer(self) -> TokenizerName:
        """Name of the tokenizer."""
        return self.vocabulary.tokenizer

    def __len__(self) -> int:
        return self._state.rows

    def _encode(self, texts: Sequence[str] | Encoded) -> Encoded:
        """Return `texts` encoded with the vocabulary of this index."""
        if not isinstance(texts, Encoded):
            return encode(texts, self.tokenizer, self.vocabulary)
        if texts.vocabulary is self.vocabulary:
            return texts
        if texts.vocabulary.tokenizer != self.tokenizer:
            message = f"texts are encoded with tokenizer {texts.vocabulary.tokenizer!r}; encode with {self.tokenizer!r}"
            raise ValueError(message)
        if len(self.vocabulary) == 0:
            self.vocabulary = texts.vocabulary
            return texts
        known, meaning = self._foreign or (None, None)
        if known is not texts.vocabulary or meaning is None:
            meaning = np.empty(0, np.int32)
        if meaning.size < len(texts.vocabulary):
            meaning = np.concatenate([meaning, self.vocabulary.translate(texts.vocabulary, meaning.size)])
            self._foreign = (texts.vocabulary, meaning)
        return Encoded(meaning[texts.ids], texts.offsets, self.vocabulary, texts.silent)

    def _join(self, texts: Sequence[str] | Encoded, mode: int) -> FilterResult:
        batch = self._encode(texts)
        self.silent += batch.silent if mode != bounds.JUDGE else 0
        self._state.make_room(batch, adding=mode != bounds.JUDGE)
        self._index.prepare(self._state, batch, adding=mode != bounds.JUDGE)
        return self._index.join(self._state, batch, mode)

    def add(self, texts: Sequence[str] | Encoded) -> None:
        """Add `texts` to the pool without judging them (seeds, or a pool that is already filtered).

        Raises:
            TypeError, ValueError: as in `encode`; the pool is then unchanged.
        """
        self._join(texts, bounds.ADD)

    def filter(self, texts: Sequence[str] | Encoded) -> FilterResult:
        """Return which `texts` are kept, judged in order against the pool; kept texts join the pool.

        One call with n texts and n calls with one text give the same decisions.

        Raises:
            TypeError, ValueError: as in `encode`; the pool is then unchanged.
        """
        return self._join(texts, bounds.JUDGE_AND_ADD)

    def check(self, texts: Sequence[str] | Encoded) -> FilterResult:
        """Return which `texts` would be kept, each judged against the current pool; the pool does not change.

        Raises:
            TypeError, ValueError: as in `encode`.
        """
        return self._join(texts, bounds.JUDGE)

    def _scores(self, batch: Encoded) -> NDArray[np.float64]:
        state = self._state
        return self._scanner.scan((batch.ids, batch.offsets), *state.pool, state.rows, len(self.vocabulary))

    def _one(self, text: str | Encoded) -> Encoded:
        batch = self._encode([text] if isinstance(text, str) else text)
        if len(batch) != 1:
            message = f"expected one text, not {len(batch)}"
            raise ValueError(message)
        return batch

    def scores(self, text: str | Encoded) -> NDArray[np.float64]:
        """Return the ROUGE-L F of `text` with every text of the pool, float64[len(self)].

        A full scan, with every prefilter: some nanoseconds per text of the pool.
        """
        row: NDArray[np.float64] = self._scores(self._one(text))[0]
        return row

    def nearest(self, text: str | Encoded, k: int = 10) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the `k` nearest texts of the pool as (positions int64, scores float64), nearest first.

        Ties are ordered by position. If the pool has fewer than `k` texts, all are returned. A full scan.

        Raises:
            ValueError: if `k` is negative.
        """
        if k < 0:
            message = f"k must not be negative, not {k}"
            raise ValueError(message)
        return top(self.scores(text), k)

    def nearest_before(
        self, positions: Sequence[int], threads: int | None = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return for texts of the pool the nearest of the texts before each: (neighbors, scores).

        That is the neighbour each text had when it joined the pool; -1 and NaN for the first text. A full scan of the
        texts before each.

        Args:
            positions: positions of texts of the pool, int.
            threads: number of threads; all processors of this process if None.

        Returns:
            neighbors: int64[positions], ties to the lowest position. scores: float64[positions].

        Raises:
            IndexError: if a position is not in the pool.
        """
        rows = np.asarray(positions, np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            message = f"positions must be within the pool of {len(self)} texts"
            raise IndexError(message)
        state = self._state
        return self._scanner.nearest_before(rows, *state.pool, state.rows, len(self.vocabulary), threads)

    def mean_score(self, text: str | Encoded) -> float:
        """Return the mean of `scores(text)` (numpy's float64 mean); 0.0 for an empty pool."""
        return float(self.scores(text).mean()) if len(self) else 0.0

    def measure_recall(self, texts: Sequence[str] | Encoded) -> list[Recall]:
        """Return, by score bin, how many pairs of `texts` and the pool above the threshold the prefilter finds.

        All pairs are found by a full scan. The inner bin edges are 0.75 and 0.85.
        """
        batch = self._encode(texts)
        self._state.make_room(batch, adding=False)
        self._index.prepare(self._state, batch, adding=False)
        edges = [self.threshold, *(edge for edge in RECALL_BINS if edge > self.threshold), 1.0]
        pairs, found = np.zeros((2, len(edges) - 1), np.int64)
        rows = max(1, _RECALL_PAIRS // max(1, len(self)))
        for first in range(0, len(batch), rows):
            block = batch.block(first, first + rows)
            scores = self._scores(block)
            shown = np.ones(scores.shape, np.bool_)
            if isinstance(self._index, BandIndex | SharedIndex):
                shown = self._index.candidates(self._state, block)
            for place, (low, high) in enumerate(pairwise(edges)):
                inside = (scores > low) & (scores <= high)
                pairs[place] += inside.sum()
                found[place] += (inside & shown).sum()
        bins = zip(pairwise(edges), pairs.tolist(), found.tolist(), strict=True)
        return [Recall(low, high, all_of_them, some) for (low, high), all_of_them, some in bins]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pool and its settings to `path` atomically, as a numpy archive without pickle.

        Raises:
            OSError: if the file cannot be written; an existing file is then unchanged.
        """
        state, target = self._state, Path(path)
        arena, token_bounds = self.vocabulary.token_bytes()
        offsets = state.pool.offsets[: state.rows + 1]
        settings = {
            "format": _FORMAT, "version": _VERSION, "threshold": self.threshold, "prefilter": self.prefilter,
            "tokenizer": self.tokenizer, "recall": self.recall, "seed": self.seed,
        }  # fmt: skip
        aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with aside.open("wb") as file:
                np.savez(
                    file, settings=np.frombuffer(json.dumps(settings).encode(), np.uint8), token_bytes=arena,
                    token_bounds=token_bounds, ids=state.pool.ids[: offsets[-1]], offsets=offsets,
                )  # fmt: skip
                file.flush()
                os.fsync(file.fileno())
            aside.replace(target)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str], **expected: object) -> "NoveltyIndex":
        """Return the index that `save` wrote; its postings are rebuilt.

        Args:
            path: file written by `save`.
            expected: settings that it must have been saved with (`threshold=0.7`, `tokenizer="rouge"`, ...).

        Raises:
            OSError: if the file cannot be read.
            ValueError: if the file is not a saved index, has another version, is damaged, or differs from `expected`.
        """
        settings, arrays = _read(Path(path))
        for name, value in expected.items():
            if settings.get(name) != value:
                message = f"{path}: saved with {name}={settings.get(name)!r}, not {value!r}"
                raise ValueError(message)
        index = cls(
            threshold=cast("float", settings["threshold"]),
            prefilter=cast("PrefilterName", settings["prefilter"]),
            tokenizer=cast("TokenizerName", settings["tokenizer"]),
            recall=cast("float", settings["recall"]),
            seed=cast("int", settings["seed"]),
        )
        index.vocabulary = Vocabulary.from_bytes(index.tokenizer, arrays["token_bytes"], arrays["token_bounds"])
        index.add(Encoded(arrays["ids"], arrays["offsets"], index.vocabulary))
        return index


def _read(path: Path) -> tuple[dict[str, object], dict[str, NDArray[Any]]]:
    """Return settings and arrays of a saved index, checked; raise ValueError if they are not valid."""
    dtypes = {"token_bytes": "uint8", "token_bounds": "int64", "ids": "int32", "offsets": "int64"}
    try:
        with np.load(path, allow_pickle=False) as archive:
            settings = json.loads(archive["settings"].tobytes())
            arrays = {name: archive[name] for name in dtypes}
    except OSError:
        raise
    except Exception as error:
        message = f"{path}: not a saved index ({error})"
        raise ValueError(message) from error
    if not isinstance(settings, dict) or settings.get("format") != _FORMAT:
        message = f"{path}: not a saved index"
        raise ValueError(message)
    if settings.get("version") != _VERSION:
        message = f"{path}: format version {settings.get('version')}, this program reads {_VERSION}"
        raise ValueError(message)
    tokens = arrays["token_bounds"].size - 1
    sound = all(arrays[name].dtype == dtype and arrays[name].ndim == 1 for name, dtype in dtypes.items())
    for name, end in (("token_bounds", arrays["token_bytes"].size), ("offsets", arrays["ids"].size)):
        steps = arrays[name]
        sound = sound and steps.size > 0 and steps[0] == 0 and steps[-1] == end and bool((np.diff(steps) >= 0).all())
    ids = arrays["ids"]
    if not sound or (ids.size and (ids.min() < 0 or ids.max() >= tokens)):
        message = f"{path}: damaged: its arrays are inconsistent"
        raise ValueError(message)
    return settings, arrays

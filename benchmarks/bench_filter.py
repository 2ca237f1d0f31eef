"""The novelty filter compared with other libraries in time and decisions, in one run, on one thread.

    python benchmarks/bench_filter.py                      # a generated raw corpus, rich in near copies
    python benchmarks/bench_filter.py alpaca_52k.jsonl     # also a file of tasks

Ratios are within this run; times are the minimum of several repeats; kernels are compiled beforehand. Times that would
take hours to measure are extrapolated from a sample and marked with *.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from results import machine, pin_threads, seconds, table, write_section

pin_threads(1)

import datasketch  # noqa: E402 - the threads are pinned first
import numpy as np  # noqa: E402
import rapidrouge  # noqa: E402
import rensa  # noqa: E402
import rouge_score_rs  # noqa: E402
from rapidfuzz.distance import Indel, LCSseq  # noqa: E402
from rapidfuzz.process import cdist  # noqa: E402
from SetSimilaritySearch import all_pairs  # noqa: E402

from corpus import instructions  # noqa: E402
from selfinstruct_local.cli.bench_run import Timing, as_strings, bench_filter, fastest, greedy_pairs  # noqa: E402
from selfinstruct_local.io.reader import read_tasks  # noqa: E402
from selfinstruct_local.kernels import Encoded, NoveltyIndex, encode, rouge_l_matrix  # noqa: E402
from selfinstruct_local.kernels.minhash import Bands, choose_bands, jaccard_bound, signatures  # noqa: E402
from selfinstruct_local.kernels.scan import Scanner  # noqa: E402

THRESHOLD = 0.7
SAMPLE_PAIRS = 20_000
LSH_SAMPLE = 4_000
JOIN_SAMPLE = 15_000
SCAN_QUERIES = 60
STREAM_POOL, STREAM_QUERIES = 50_000, 1_500
SIGNATURE_SAMPLE = 3_000
HASH_SEEDS = range(10)
PROCESS_REPEATS = 7
RECALL_QUERIES = 2_000


def occurrence_sets(encoded: Encoded) -> list[list[str]]:
    """Return each text as the set of its tokens with occurrence numbers, as the MinHash prefilter hashes it."""
    sets = []
    for number in range(len(encoded)):
        seen: dict[str, int] = {}
        elements = []
        for token in encoded.row(number):
            seen[token] = seen.get(token, 0) + 1
            elements.append(f"{token}#{seen[token]}")
        sets.append(elements)
    return sets


def pair_scorers() -> list[tuple[str, Callable[[str, str], float]]]:
    """Return the libraries that score one pair at a time, as (name, function)."""
    rust = rouge_score_rs.RougeScorer(["rougeL"], use_stemmer=False)
    rapid = rapidrouge.RougeScorer(["rougeL"], use_stemmer=False)
    return [
        ("rouge-score-rs", lambda one, other: float(rust.score(one, other)["rougeL"].fmeasure)),
        ("rapidrouge", lambda one, other: float(rapid.score(one, other)["rougeL"].fmeasure)),
    ]


def per_pair(texts: Sequence[str], kept: Any, name: str, score: Callable[[str, str], float]) -> Timing:
    """Return the time of a pair-at-a-time library in the published loop, extrapolated from a sample of pairs."""
    chosen = np.random.default_rng(0).integers(0, len(texts), (SAMPLE_PAIRS, 2)).tolist()
    start = time.perf_counter()
    found = [score(texts[one], texts[other]) for one, other in chosen]
    pair = (time.perf_counter() - start) / SAMPLE_PAIRS
    encoded = encode(texts)
    ours = [rouge_l_matrix(encoded.block(i, i + 1), encoded.block(j, j + 1))[0, 0] for i, j in chosen[:2000]]
    differ = sum(one != other for one, other in zip(ours, found, strict=False))
    note = f"{pair * 1e6:.2f} us per pair; {len(ours)} scores compared, {differ or 'none'} differ"
    return Timing(name, pair * greedy_pairs(kept), extrapolated=True, note=note)


def published_f(one: str, other: str) -> float:
    """Return ROUGE-L F of two texts as strings, from rapidfuzz's LCS, in the float64 steps of `rouge_score`.

    rapidfuzz's own normalised similarity, 2 LCS / (m + n), gives other float64 values on the boundary.
    """
    common = LCSseq.similarity(one, other)
    if not common:
        return 0.0
    precision, recall = common / len(one), common / len(other)
    return 2 * precision * recall / (precision + recall)


def datasketch_alone(encoded: Encoded, kept: Any) -> Timing:
    """Return the time of a greedy loop with datasketch's MinHash and MinHashLSH that scores each candidate.

    It is extrapolated linearly from a sample, which is the best case.
    """
    bands = choose_bands(THRESHOLD, 0.999, len(encoded))
    sets = occurrence_sets(encoded.block(0, LSH_SAMPLE))
    strings = as_strings(encoded.block(0, LSH_SAMPLE))
    blank = datasketch.MinHash(num_perm=bands.bands * bands.rows, seed=1)
    lsh = datasketch.MinHashLSH(num_perm=bands.bands * bands.rows, params=(bands.bands, bands.rows))
    start = time.perf_counter()
    decisions = []
    for number, elements in enumerate(sets):
        signature = blank.copy()
        signature.update_batch([element.encode() for element in elements])
        near = lsh.query(signature)
        decisions.append(all(published_f(strings[number], strings[other]) <= THRESHOLD for other in near))
        if decisions[-1]:
            lsh.insert(number, signature)
    text = (time.perf_counter() - start) / LSH_SAMPLE
    differ = int((np.array(decisions) != kept[:LSH_SAMPLE]).sum())
    note = f"{text * 1e3:.2f} ms per text over the first {LSH_SAMPLE}, growing; {differ or 'no'} decisions differ"
    return Timing("datasketch MinHash + MinHashLSH + scoring", text * len(encoded), extrapolated=True, note=note)


def set_join(encoded: Encoded, kept: Any) -> Timing:
    """Return the time of an exact set-similarity join, scoring and a greedy pass, on the first texts.

    The join is over token occurrences; its pairs are scored.
    """
    block = encoded.block(0, JOIN_SAMPLE)
    sets, strings = occurrence_sets(block), as_strings(block)
    start = time.perf_counter()
    near: dict[int, list[int]] = {}
    for one, other, _ in all_pairs(sets, similarity_func_name="jaccard", similarity_threshold=jaccard_bound(THRESHOLD)):
        if published_f(strings[one], strings[other]) > THRESHOLD:
            near.setdefault(max(one, other), []).append(min(one, other))
    keep = np.ones(len(block), np.bool_)
    for number in sorted(near):
        keep[number] = not any(keep[other] for other in near[number])
    spent = time.perf_counter() - start
    ours = fastest(lambda: NoveltyIndex(THRESHOLD).filter(block))
    differ = int((keep != kept[: len(block)]).sum())
    note = f"only the first {len(block)} texts, {spent / ours:,.0f} times ours there; {differ or 'no'} decisions differ"
    return Timing("SetSimilaritySearch all_pairs + scoring", spent, note=note)


def filters(texts: Sequence[str]) -> str:
    """Return the table of whole filters over `texts`."""
    bench = bench_filter(texts, THRESHOLD)
    encoded = encode(texts)
    kept = NoveltyIndex(THRESHOLD).filter(encoded).kept
    timings = bench.timings[1:]  # without compilation, which the section on first use measures
    minhash = NoveltyIndex(THRESHOLD, prefilter="minhash").filter(encoded).kept
    note = f"{int((minhash != kept).sum()) or 'no'} decisions differ"
    spent = fastest(lambda: NoveltyIndex(THRESHOLD, prefilter="minhash").filter(encoded), repeats=3)
    timings.insert(3, Timing("filter (minhash), tokens ready", spent, note=note))
    timings += [per_pair(texts, kept, name, score) for name, score in pair_scorers()]
    timings += [datasketch_alone(encoded, kept), set_join(encoded, kept)]
    own = timings[1].seconds
    rows = [
        (each.name, seconds(each.seconds) + ("*" if each.extrapolated else ""), f"{each.seconds / own:,.1f}", each.note)
        for each in timings
    ]
    counts = f"{bench.texts} texts, {bench.tokens} tokens, {bench.kept} kept at ROUGE-L {THRESHOLD}"
    intro = f"{counts}. One thread. * extrapolated."
    return f"{intro}\n\n{table(('what', 'time', 'over ours', 'note'), rows)}"


def scan(encoded: Encoded) -> str:
    """Return the table of full scans of some queries, with one and two threads, compared with rapidfuzz.

    The pool is prepared once, as in an index that answers many queries.
    """
    strings = as_strings(encoded)
    queries = encoded.block(0, SCAN_QUERIES)
    pairs = SCAN_QUERIES * len(encoded)
    rows = []
    for threads in (1, 2):
        scanner = Scanner(threads)
        pool = (encoded.ids, encoded.offsets, len(encoded), len(encoded.vocabulary))
        ours = fastest(partial(scanner.scan, (queries.ids, queries.offsets), *pool), repeats=7)
        brute = partial(cdist, scorer=Indel.normalized_similarity, dtype=np.float64, workers=threads)
        theirs = fastest(partial(brute, strings[:SCAN_QUERIES], strings), repeats=7)
        rows.append((threads, f"{ours / pairs * 1e9:.1f}", f"{theirs / pairs * 1e9:.1f}", f"{theirs / ours:.2f}"))
    own = rouge_l_matrix(queries, encoded)
    peer = cdist(strings[:SCAN_QUERIES], strings, scorer=Indel.normalized_similarity, dtype=np.float64)
    # rapidfuzz scores two empty texts as equal.
    spoken = (encoded.lengths[:SCAN_QUERIES, None] > 0) & (encoded.lengths > 0)
    worst = float(np.abs(own - peer)[spoken].max())
    head = ("threads", "ours, ns per pair", "rapidfuzz cdist, ns per pair", "ratio")
    return f"{table(head, rows)}\n\n{pairs} pairs; scores differ by at most {worst:.1e}."


FIRST_USE = """
import time
start = time.perf_counter()
from selfinstruct_local.kernels import NoveltyIndex, rouge_l_matrix
imported = time.perf_counter()
NoveltyIndex().filter(["one two three four", "one two three five"])
exact = time.perf_counter()
index = NoveltyIndex(prefilter="minhash")
index.filter(["one two three four", "one two three five"])
index.nearest("one two", 1)
NoveltyIndex(prefilter="none").filter(["one two three"])
rouge_l_matrix(["one two"], ["one two"])
print(imported - start, exact - imported, time.perf_counter() - exact)
"""


def first_use() -> str:
    """Return the table of times with an empty and with a full kernel cache, each in its own process."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("empty cache: compiling", "full cache: loading"):
            environment = {**os.environ, "SELFINSTRUCT_CACHE": folder}
            command = [sys.executable, "-c", FIRST_USE]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            imported, exact, rest = map(float, done.stdout.split())
            rows.append((name, *(f"{spent:.2f}" for spent in (imported, exact, rest, exact + rest))))
    head = ("", "import, s", "exact filter, s", "all other kernels, s", "kernels together, s")
    return table(head, rows)


def stream(texts: Sequence[str]) -> str:
    """Return the table of times for one instruction at a time against a pool."""
    index = NoveltyIndex(THRESHOLD)
    size = min(STREAM_POOL, len(texts) - STREAM_QUERIES)
    index.add(texts[:size])
    spent: dict[str, list[float]] = {"filter([text])": [], "nearest(text, 10)": [], "mean_score(text)": []}
    for text in texts[size : size + STREAM_QUERIES]:
        for name, call in (
            ("nearest(text, 10)", partial(index.nearest, text, 10)),
            ("mean_score(text)", partial(index.mean_score, text)),
            ("filter([text])", partial(index.filter, [text])),
        ):
            start = time.perf_counter()
            call()
            spent[name].append((time.perf_counter() - start) * 1e6)
    rows = [(name, f"{np.median(each):.0f}", f"{np.percentile(each, 99):.0f}") for name, each in spent.items()]
    times = table(("call", "median, us", "99th percentile, us"), rows)
    return f"Against a pool of {size}, {STREAM_QUERIES} texts.\n\n{times}"


def minhash(encoded: Encoded) -> str:
    """Return the table of signature times compared with rensa and datasketch, and the recall over ten hash seeds."""
    rows = []
    tokens = [encoded.row(number) for number in range(SIGNATURE_SAMPLE)]
    data = [[token.encode() for token in row] for row in tokens[:300]]
    for bands in dict.fromkeys((choose_bands(THRESHOLD, 0.999, len(encoded)), Bands(41, 3), Bands(32, 4))):
        count = bands.bands * bands.rows
        block = encoded.block(0, SIGNATURE_SAMPLE)
        signatures(block, bands, 1)
        ours = fastest(partial(signatures, block, bands, 1)) / SIGNATURE_SAMPLE

        def with_rensa(count: int = count) -> None:
            for row in tokens:
                rensa.RMinHash(num_perm=count, seed=1).update(row)

        blank = datasketch.MinHash(num_perm=count)

        def with_datasketch(blank: Any = blank) -> None:
            for row in data:
                blank.copy().update_batch(row)

        theirs = fastest(with_rensa) / SIGNATURE_SAMPLE
        slow = fastest(with_datasketch, repeats=3) / len(data)
        cells = (ours * 1e6, theirs * 1e6, slow * 1e6)
        rows.append((count, *(f"{cell:.2f}" for cell in cells), f"{theirs / ours:.2f}", f"{slow / ours:.0f}"))
    head = ("permutations", "ours, us/text", "rensa", "datasketch update_batch", "rensa / ours", "datasketch / ours")
    return f"{table(head, rows)}\n\n{recall(encoded)}"


def recall(encoded: Encoded) -> str:
    """Return the table of recall for pairs above the threshold, by score, over ten hash seeds."""
    size = len(encoded) - RECALL_QUERIES
    found: dict[tuple[float, float], list[float]] = {}
    pairs: dict[tuple[float, float], int] = {}
    for seed in HASH_SEEDS:
        index = NoveltyIndex(THRESHOLD, prefilter="minhash", seed=seed)
        index.add(encoded.block(0, size))
        for each in index.measure_recall(encoded.block(size, len(encoded))):
            if each.pairs:
                found.setdefault((each.low, each.high), []).append(each.found / each.pairs)
                pairs[each.low, each.high] = each.pairs
    rows = [
        (f"{low:.2f} to {high:.2f}", pairs[low, high], f"{np.mean(shares):.5f}", f"{min(shares):.5f}")
        for (low, high), shares in found.items()
    ]
    head = ("ROUGE-L F", "pairs", "mean recall", "minimum")
    return f"Recall over {len(HASH_SEEDS)} hash seeds, target 0.999:\n\n{table(head, rows)}"


READ_AND_WRITE = """
import sys, orjson
with open(sys.argv[1], "rb") as source, open(sys.argv[2], "wb") as out:
    for line in source:
        out.write(orjson.dumps(orjson.loads(line), option=orjson.OPT_APPEND_NEWLINE))
import numba
"""


def whole_process(file: Path) -> str:
    """Return the table of `selfinstruct filter` from start to exit, compared with only reading, writing and importing.

    Kernels are cached; the import is that of numba.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "out.jsonl")
        filtering = [sys.executable, "-m", "selfinstruct_local", "filter", str(file), "--out", out]
        commands = {
            "read and write with orjson, import numba": [sys.executable, "-c", READ_AND_WRITE, str(file), out],
            "selfinstruct filter --rules none": [*filtering, "--rules", "none"],
            "selfinstruct filter": filtering,
        }
        spent: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(PROCESS_REPEATS + 1):  # interleaved; the first round is a warm-up
            for name, command in commands.items():
                start = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                spent[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(times[1:])) for name, times in spent.items()}
    base = next(iter(medians.values()))
    rows = [(name, f"{median:.2f}", f"{median / base:.2f}") for name, median in medians.items()]
    return table(("process", "median, s", "over the first"), rows)


def main() -> None:
    """Measure the generated corpus, and the file if one is given; write the sections to RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path, nargs="?", help="file of tasks to measure as well")
    parser.add_argument("--process", action="store_true", help="measure only the whole process, on that file")
    arguments = parser.parse_args()
    file: Path | None = arguments.tasks
    if file and arguments.process:
        write_section("Whole process", f"{machine()}.\n\n{whole_process(file)}")
        return
    raw = instructions(52_002, near_copies=0.25)
    write_section("Filter: a generated raw corpus, a quarter near copies", f"{machine()}.\n\n{filters(raw)}")
    texts = raw
    if file:
        texts = [task.instruction for task in read_tasks(file)]
        write_section(f"Filter: {file.stem}", f"{machine()}.\n\n{filters(texts)}")
        write_section("Whole process", f"{machine()}.\n\n{whole_process(file)}")
    write_section("First use", f"{machine()}.\n\n{first_use()}")
    encoded = encode(texts)
    write_section("Scan", f"{machine()}.\n\n{scan(encoded)}")
    write_section("Stream", f"{machine()}. One thread.\n\n{stream(texts)}")
    write_section("MinHash", f"{machine()}. One thread.\n\n{minhash(encode(raw))}")


if __name__ == "__main__":
    main()

"""Time and memory of the filter as the pool grows, from 50,000 to 1,000,000 generated instructions.

    python benchmarks/bench_growth.py

Each size and prefilter runs in its own process on one thread, so that the peak memory is its own. The exponent is that
of a power law fitted to the times (least squares on logarithms).
"""

import json
import resource
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

from results import machine, pin_threads, table, write_section

pin_threads(1)

import matplotlib as mpl  # noqa: E402 - the threads are pinned first
import numpy as np  # noqa: E402

from corpus import instructions  # noqa: E402
from selfinstruct_local.kernels import NoveltyIndex, encode  # noqa: E402

SIZES = (50_000, 100_000, 200_000, 500_000, 1_000_000)
PREFILTERS = ("exact", "minhash")
REPEATS = 3  # of sizes up to REPEATED
REPEATED = 200_000
PLOT = Path(__file__).with_name("growth.png")


def measure(corpus: Path, size: int, prefilter: str) -> dict[str, float]:
    """Return seconds and peak memory of one filter pass; call it in a new process."""
    NoveltyIndex(prefilter=prefilter).filter(["warm up the kernels", "before they are timed"])  # type: ignore[arg-type]
    with corpus.open(encoding="utf-8") as stream:
        texts = [next(stream).rstrip("\n") for _ in range(size)]
    start = time.perf_counter()
    encoded = encode(texts)
    tokenising = time.perf_counter() - start
    del texts
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    best, kept = float("inf"), 0
    for _ in range(REPEATS if size <= REPEATED else 1):
        start = time.perf_counter()
        kept = int(NoveltyIndex(prefilter=prefilter).filter(encoded).kept.sum())  # type: ignore[arg-type]
        best = min(best, time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": best, "tokenising": tokenising, "kept": kept, "megabytes": (peak - before) / 1024}


def exponent(sizes: list[int], times: list[float]) -> float:
    """Return the exponent of the power law of the times over the sizes."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def main() -> None:
    """Generate the corpus, measure all sizes, and write the section and the plot."""
    corpus = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("growth-corpus.txt")
    corpus.write_text("\n".join(instructions(max(SIZES))) + "\n", encoding="utf-8")
    found: dict[str, list[dict[str, float]]] = {prefilter: [] for prefilter in PREFILTERS}
    try:
        for size in SIZES:
            for prefilter in PREFILTERS:
                command = [sys.executable, __file__, "--measure", str(corpus), str(size), prefilter]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found[prefilter].append(json.loads(done.stdout))
    finally:
        corpus.unlink()
    rows = []
    for place, size in enumerate(SIZES):
        exact, minhash = (found[prefilter][place] for prefilter in PREFILTERS)
        cells = [
            f"{each[name]:.2f}" if name == "seconds" else f"{each[name]:.0f}"
            for each in (exact, minhash)
            for name in ("seconds", "megabytes")
        ]
        differ = int(minhash["kept"] - exact["kept"])
        rows.append((f"{size:,}", f"{exact['tokenising']:.2f}", *cells, f"{int(exact['kept']):,}", differ))
    head = ("texts", "tokenise, s", "exact, s", "MB", "minhash, s", "MB", "kept", "kept more by minhash")
    powers = {
        prefilter: exponent(list(SIZES), [each["seconds"] for each in measured])
        for prefilter, measured in found.items()
    }
    fits = "; ".join(f"{prefilter}: time grows with the power {power:.2f}" for prefilter, power in powers.items())
    overtakes = [
        f"between {small:,} and {large:,}"
        for (small, large), place in zip(pairwise(SIZES), range(1, len(SIZES)), strict=True)
        if found["minhash"][place]["seconds"] < found["exact"][place]["seconds"]
        and found["minhash"][place - 1]["seconds"] >= found["exact"][place - 1]["seconds"]
    ]
    crossing = f"minhash overtakes exact {overtakes[0]} texts" if overtakes else "minhash never overtakes exact"
    repeats = f"Minimum of {REPEATS} up to {REPEATED:,}, one run above"
    body = (
        f"{machine()}. One thread, tokens ready; MB over the input. {repeats}.\n\n"
        f"{table(head, rows)}\n\n{fits}; {crossing}.\n\n![time over size](growth.png)"
    )
    write_section("Growth", body)
    plot(found)


def plot(found: dict[str, list[dict[str, float]]]) -> None:
    """Save the plot of time over size, both axes logarithmic."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), dpi=120)
    for prefilter, measured in found.items():
        axes.loglog(SIZES, [each["seconds"] for each in measured], marker="o", label=prefilter)
    axes.set_xlabel("instructions")
    axes.set_ylabel("seconds, one thread")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(PLOT)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        main()

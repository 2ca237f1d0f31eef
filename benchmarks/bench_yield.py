"""What a profile makes of a thousand generated tokens, beside the published programs, on the embedded model.

    python benchmarks/bench_yield.py [--write] [--baseline-accepted 15] [--accepted 200] [--tokens 15000]
        [--cap 120000] [--only NAME ...] [--folder runs/bench-yield] [--verdicts FILE]

Each arm is a run of its own under --folder and goes on where it was broken off; arms that are done cost no token, so a
second call only writes the report again. One engine serves all arms. A job that was asked is always finished, decided
and counted with all its tokens: no arm gains by what would have been cut off at its end.

Leans on `yield_arms.py`, which runs an arm, and on `yield_report.py`, which counts it and writes the section.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from results import write_section
from tokenizers import Tokenizer
from yield_arms import BASELINE, OURS, Arm, KeptEngine, make_arms, run_arm
from yield_report import make_report, measure

from selfinstruct_local.generate.launch import ChosenModel
from selfinstruct_local.interrupt import SIGNAL_EXIT, interruptible
from selfinstruct_local.models import prepare_embedded
from selfinstruct_local.offline import go_offline

TITLE = "Yield on the embedded model"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline-accepted", type=int, default=15, help=f"least accepted tasks of {BASELINE}")
    parser.add_argument("--accepted", type=int, default=200, help=f"least accepted tasks of {OURS}")
    parser.add_argument("--tokens", type=int, default=15_000, help="least tokens of the published arms")
    parser.add_argument("--cap", type=int, default=120_000, help="tokens after which an arm gives up on its tasks")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these arms alone")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-yield"), help="of the runs, which are kept")
    parser.add_argument("--verdicts", type=Path, help="JSON object: number of a shown task to a reader's verdict")
    parser.add_argument("--write", action="store_true", help="put the section into RESULTS.md")
    options = parser.parse_args()
    arms = make_arms(options.tokens, options.accepted, options.baseline_accepted, options.cap)
    names = [arm.name for arm in arms]
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"--only {' '.join(sorted(unknown))}: no such arm; there are {', '.join(names)}")
    if options.only and options.write:
        parser.error("--write: the section has all arms; leave --only out")
    verdicts = json.loads(options.verdicts.read_text(encoding="utf-8")) if options.verdicts else None
    go_offline()
    report = bench(
        [arm for arm in arms if not options.only or arm.name in options.only], options.folder, verdicts=verdicts
    )
    if options.write:
        write_section(TITLE, report)
    else:
        print(f"## {TITLE}\n\n{report}")


def bench(arms: Sequence[Arm], folder: Path, *, verdicts: Mapping[str, str] | None = None) -> str:
    """Runs what is not done yet and gives the report; exits when a signal comes."""
    embedded = prepare_embedded()
    model = ChosenModel(embedded)
    settings = {arm.name: arm.settings(model) for arm in arms}
    folder.mkdir(parents=True, exist_ok=True)
    with (
        interruptible() as interrupt,
        closing(KeptEngine(model, settings[arms[0].name], folder / "engine.log", interrupt)) as engine,
    ):
        for arm in arms:
            done = run_arm(arm, folder / arm.name, settings[arm.name], model.facts(), engine, interrupt)
            if not done and interrupt.signum is not None:
                sys.exit(SIGNAL_EXIT + interrupt.signum)
    tokenizer = Tokenizer.from_file(str(embedded.path / "tokenizer.json"))

    def count_tokens(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    measured = [measure(arm, folder / arm.name, settings[arm.name], count_tokens) for arm in arms]
    return make_report(measured, f"`{embedded.path.name}`", verdicts)


if __name__ == "__main__":
    main()

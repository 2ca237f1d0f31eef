"""Does the data help? Tunes the embedded model on each arm and measures it on expert-written tasks.

    python benchmarks/bench_data_value.py --arm NAME=FILE_OR_RUN [--arm ...] --expert FILE [--num 150] [--seeds 3]
        [--write]

An arm is --num tasks drawn from a run or a file, each with its first instance. One more arm, "seeds", has instances of
the package's seeds, with as many trainable tokens as the first arm or as near as whole instances allow. Each arm tunes
all weights of the embedded model with `selfinstruct train`, once per training seed; `selfinstruct eval` then evaluates
each model, and the untuned one, on all tasks of the --expert file. Files may be gzipped. Models are trained and
evaluated one after the other. Results are kept in --folder; the same command resumes with the missing ones.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from bench_rules import read_file, sample
from results import machine, write_section
from tuning_arms import DRAW, SEEDS, SETTINGS, make_arms, parse_arms, row_of, store_rows, trainable
from tuning_figures import RESAMPLES, UNTUNED, make_table, read_asked

from selfinstruct_local.errors import UserFacingError
from selfinstruct_local.models import ModelFolder, prepare_embedded
from selfinstruct_local.models.adapter import TRAINING_MANIFEST
from selfinstruct_local.train.checkpoints import PREFIX

TITLE = "Tuning the embedded model"


def main() -> None:
    """Parse the options, run the benchmark, and print the section or write it to RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--arm", action="append", required=True, metavar="NAME=PATH", help="arm: a run folder or a file of tasks"
    )
    parser.add_argument("--expert", type=Path, required=True, metavar="FILE", help="file of expert-written tasks")
    parser.add_argument("--num", type=int, default=150, help="tasks per arm (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds per arm (default: %(default)s)")
    parser.add_argument("--ask", type=int, help="expert tasks to evaluate on, drawn at random (default: all)")
    parser.add_argument("--max-tokens", type=int, default=256, help="tokens per completion (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-data-value"), help="models and results")
    parser.add_argument("--write", action="store_true", help="write the section to RESULTS.md")
    options = parser.parse_args()
    if min(options.num, options.seeds, options.max_tokens, 1 if options.ask is None else options.ask) < 1:
        parser.error("--num, --seeds, --ask and --max-tokens must be at least 1")
    try:
        report = bench(options)
    except (UserFacingError, OSError) as error:
        parser.error(str(error))
    if options.write:
        write_section(TITLE, report)
    else:
        print(f"## {TITLE}\n\n{report}")


def bench(options: argparse.Namespace) -> str:
    """Train and evaluate the models without results; return the section of RESULTS.md."""
    folder: Path = options.folder
    model = prepare_embedded()
    arms = make_arms(parse_arms(options.arm), options.num, model)
    expert = read_file(options.expert)
    expert = sample(expert, options.ask or len(expert), DRAW)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in {"expert": [row_of(task) for task in expert], **arms}.items():
        store_rows(folder / f"{name}.json", rows)
    asking = ["--data", folder / "expert.json", "--num", len(expert), "--max-tokens", options.max_tokens]
    asked = {}
    for template, name in UNTUNED.items():
        out = folder / "asked" / f"untuned-{template}"
        if not is_asked(out):
            selfinstruct("eval", *asking, "--model", model.path, "--template", template, "--out", out)
        asked[name] = read_asked([out], options.max_tokens)
    for name in arms:
        outs = [folder / "asked" / f"{name}-{seed}" for seed in range(options.seeds)]
        for seed, out in enumerate(outs):
            if not is_asked(out):
                tuned = tune(folder, name, seed, model)
                selfinstruct("eval", *asking, "--model", tuned, "--out", out)
        asked[name] = read_asked(outs, options.max_tokens)
    sizes = {name: (len(rows), sum(trainable(rows, model))) for name, rows in arms.items()}
    return f"{describe(options, len(expert), sizes)}\n\n{make_table(asked, sizes)}"


def describe(options: argparse.Namespace, asked: int, sizes: dict[str, tuple[int, int]]) -> str:
    """Return a description of how the figures were made."""
    settings = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in SETTINGS.items())
    seeds = ", ".join(map(str, range(options.seeds)))
    told = (
        f"{machine()}. SmolLM2-135M-Instruct, tuned by `selfinstruct train` ({settings}) on each arm with training "
        f"seed {seeds}, evaluated on {asked} expert-written tasks by `selfinstruct eval`. Loss: nats per trainable "
        "token of the references. Stop rate: share of completions that end by themselves within "
        f"{options.max_tokens} tokens. ROUGE-L: mean F of the completions with the references. Figures are means over "
        f"the training seeds. Intervals: 95 %, percentiles of {RESAMPLES:,} resamples, for which tasks and training "
        "seeds are drawn with replacement, independently (Owen 2007, the pigeonhole bootstrap), and n - 1 of n seeds "
        "(Rao and Wu 1988). Differences use the same tasks on both sides. Tuned models use Alpaca's prompt, with which "
        "they were tuned, and are compared with the untuned model under the same prompt."
    )
    wanted, found = next(iter(sizes.values()))[1], sizes[SEEDS][1]
    if found < 0.97 * wanted:
        told += f" All instances of the seeds have only {found:,} trainable tokens; the first arm has {wanted:,}."
    return told


def tune(folder: Path, name: str, seed: int, model: ModelFolder) -> Path:
    """Return the folder of a tuned model, trained now if it is missing."""
    out = folder / "models" / f"{name}-{seed}"
    if not (out / TRAINING_MANIFEST).is_file():
        flags = [part for key, value in SETTINGS.items() for part in (f"--{key.replace('_', '-')}", value)]
        data = folder / f"{name}.json"
        selfinstruct("train", "--model", model.path, "--data", data, *flags, "--seed", seed, "--out", out)
    for checkpoint in out.glob(f"{PREFIX}*"):  # each is three times as large as the model
        shutil.rmtree(checkpoint)
    return out


def is_asked(out: Path) -> bool:
    """Return whether an evaluation is complete: `eval.json` is written last."""
    return (out / "eval.json").is_file()


def selfinstruct(*arguments: object) -> None:
    """Run `selfinstruct` as a user does; exit with its exit code if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "selfinstruct_local", *map(str, arguments)], check=False, stdout=subprocess.DEVNULL
    )
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()

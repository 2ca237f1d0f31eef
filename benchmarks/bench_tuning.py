"""What tuning on seeds and generated tasks does to the embedded model: base beside tuned, by `selfinstruct eval`.

    python benchmarks/bench_tuning.py --run RUN [--other alpaca.jsonl] [--num 60] [--lora] [--write]

The seeds and what RUN (a run folder of `selfinstruct generate`) accepted are shuffled; a fifth is held out, the rest
tunes all weights of the model (with --lora, apart, LoRA matrices too) by the command that users call. Base and tuned
models are then asked the held-out tasks by Alpaca's template, and the base by its own chat template too. `--other`
names a file of tasks that none of them has seen, such as the 52,002 of Stanford Alpaca. Of each file --num are asked.
"""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
from results import machine, table, write_section

from selfinstruct_local.models import prepare_embedded
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.store import RunStore
from selfinstruct_local.taskfiles import read_tasks

TITLE = "Tuning the embedded model"
HELD_OUT = 0.2
SEED = 0
# Few examples for a small model: a larger rate than LLaMA-7B's.
COMMON = ["--template", "alpaca", "--max-length", "512", "--epochs", "3", "--batch-size", "8", "--warmup-ratio", "0.1"]
ARMS = {
    "all weights": ["--method", "full", "--learning-rate", "5e-5"],
    "LoRA": ["--method", "lora", "--lora-r", "16", "--lora-alpha", "32", "--learning-rate", "5e-4"],
}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder of generated tasks")
    parser.add_argument("--other", type=Path, help="a file of tasks from elsewhere")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-tuning"), help="of the models, which are kept")
    parser.add_argument("--num", type=int, default=60, help="tasks of each file that are asked")
    parser.add_argument("--lora", action="store_true", help="tune LoRA matrices too")
    parser.add_argument("--write", action="store_true", help="put the section into RESULTS.md")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    counts = split(options.run, options.folder)
    base = str(prepare_embedded().path)
    tuned = {name: options.folder / name.replace(" ", "-") for name in ARMS if options.lora or name != "LoRA"}
    for name, out in tuned.items():
        selfinstruct(
            "train", "--model", base, "--data", options.folder / "train.json", *COMMON, *ARMS[name], "--out", out
        )
    asked = {"held out": options.folder / "held_out.json"}
    if options.other:
        asked["other"] = options.other
    told = (
        f"{machine()}. {counts['seeds']} seeds and {counts['generated']} tasks that `{options.run.name}` accepted; "
        f"{counts['train']} of them tune SmolLM2-135M-Instruct ({' '.join(COMMON)}), {counts['held out']} are held "
        "out. Stopped is the share of answers that ended by themselves within 256 tokens, loss is of a token of the "
        "reference, in nats, ROUGE-L with its 95 % bootstrap interval."
    )
    parts = [told]
    for title, file in asked.items():
        parts.append(f"### {options.num} {'held-out tasks' if title == 'held out' else f'tasks of {file.name}'}")
        parts.append(compare(base, tuned, file, options.num, options.folder / f"eval-{title.replace(' ', '-')}"))
    report = "\n\n".join(parts)
    if options.write:
        write_section(TITLE, report)
    else:
        print(f"## {TITLE}\n\n{report}")


def split(run: Path, folder: Path) -> dict[str, int]:
    """Writes train.json and held_out.json into `folder`, the same each time; gives what they hold."""
    seeds = [task for task in read_tasks(seed_file()) if task.instances]
    with RunStore(run, read_only=True) as store:
        generated = [task for task in store.accepted() if task.instances]
    rows = [{"instruction": each.instruction, "input": each.input, "output": each.output} for each in seeds + generated]
    random.Random(SEED).shuffle(rows)  # noqa: S311 - a draw of data
    count = round(HELD_OUT * len(rows))
    for name, part in (("held_out", rows[:count]), ("train", rows[count:])):
        (folder / f"{name}.json").write_bytes(orjson.dumps(part, option=orjson.OPT_INDENT_2))
    return {"seeds": len(seeds), "generated": len(generated), "held out": count, "train": len(rows) - count}


def compare(base: str, tuned: dict[str, Path], file: Path, num: int, out: Path) -> str:
    """Evaluates on one file; gives the table."""
    asking = ["eval", "--data", file, "--num", num, "--seed", SEED, "--json"]
    models = [option for each in (base, *tuned.values()) for option in ("--model", each)]
    alike = selfinstruct(*asking, *models, "--template", "alpaca", "--out", out)
    own = selfinstruct(*asking, "--model", base, "--template", "chat")
    rows = [_row("base, its chat template", own["contenders"][0])]
    names = ["base, Alpaca's template", *(f"tuned, {name}" for name in tuned)]
    rows += [_row(name, figures) for name, figures in zip(names, alike["contenders"], strict=True)]
    return table(["model", "loss", "ROUGE-L", "exact match", "stopped", "tokens an answer"], rows)


def _row(name: str, figures: dict[str, Any]) -> list[str]:
    rouge, match = figures["rouge_l"], figures["exact_match"]
    return [
        name,
        f"{figures['loss']:.3f}",
        f"{rouge['mean']:.3f} [{rouge['low']:.3f}, {rouge['high']:.3f}]",
        f"{match['matched']} of {match['labelled']}",
        f"{figures['stop_rate']:.0%}",
        f"{figures['mean_tokens']:.0f}",
    ]


def selfinstruct(*arguments: Any) -> Any:
    """Calls the program as a user does; gives what it printed, where that is JSON."""
    command = [sys.executable, "-m", "selfinstruct_local", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout) if "--json" in arguments else None


if __name__ == "__main__":
    main()

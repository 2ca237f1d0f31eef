"""Can a chat model decide whether a task is classification? Log-odds of Yes over No, on the seeds.

    python benchmarks/bench_kinds.py MODEL [MODEL ...] [--write]

The 175 seeds of each language are labelled as classification or not. The model is asked about each seed in a separate
user turn, with three wordings. The figure is the area under the ROC curve, by the exact rank statistic: 0.5 is chance.
The second table has the labels that `named_labels` finds in the text of the instruction.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results import pin_threads, table, write_section

pin_threads(2)

import torch  # noqa: E402 - after the threads are pinned
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from selfinstruct_local.filters.labels import label_of, named_labels  # noqa: E402
from selfinstruct_local.io.reader import read_tasks  # noqa: E402
from selfinstruct_local.languages.base import Language  # noqa: E402
from selfinstruct_local.models import find_model  # noqa: E402
from selfinstruct_local.seeds import seed_file  # noqa: E402
from selfinstruct_local.task import Task, as_question  # noqa: E402

TITLE = "Recognising classification tasks"
WORDINGS = (
    "Is the following a classification task, whose answer is one of a few fixed labels? Answer Yes or No.\n\n{task}",
    "{task}\n\nDo not do this task. Is its answer one of a few labels that it names? Answer Yes or No.",
    "Can the task below have a limited set of output labels?\n\n{task}\n\nAnswer Yes or No.",
)


def main() -> None:
    """Print the report, or write it to RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="folders or names of prepared chat models")
    parser.add_argument("--write", action="store_true", help="write the section to RESULTS.md")
    options = parser.parse_args()
    languages: tuple[Language, ...] = ("en", "zh")
    seeds = {lang: read_tasks(seed_file(lang)) for lang in languages}
    rows = [
        [Path(name).name, lang, *(f"{each:.2f}" for each in areas(name, tasks))]
        for name in options.models
        for lang, tasks in seeds.items()
    ]
    rules = [[lang, *_rule_figures(tasks, lang)] for lang, tasks in seeds.items()]
    report = "\n\n".join(
        [
            "Area under the ROC curve of the log-odds of Yes over No, by three wordings of the question:",
            table(["model", "seeds", "wording 1", "wording 2", "wording 3"], rows),
            "Labels that `filters/labels.py` finds in the text of the instruction (developed on these seeds):",
            table(["seeds", "found, of classification seeds", "found, of the others"], rules),
        ]
    )
    if options.write:
        write_section(TITLE, report)
    else:
        print(f"## {TITLE}\n\n{report}")


@torch.inference_mode()
def areas(name: str, tasks: Sequence[Task]) -> list[float]:
    """Return the area under the curve for each wording."""
    folder = str(find_model(name).load_path)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    loader: Any = AutoModelForCausalLM
    model = loader.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    yes, no = (tokenizer.encode(word, add_special_tokens=False)[0] for word in ("Yes", "No"))
    found = []
    for wording in WORDINGS:
        scores = []
        for task in tasks:
            turn = {"role": "user", "content": wording.format(task=as_question(task.instruction, task.input))}
            text = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
            ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
            logits = model(ids, logits_to_keep=1).logits[0, -1]
            scores.append(float(logits[yes] - logits[no]))
        found.append(area(scores, [bool(task.is_classification) for task in tasks]))
    return found


def area(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Return the share of pairs of a positive and a negative in which the positive scores higher; ties count half."""
    ups = [score for score, is_positive in zip(scores, positive, strict=True) if is_positive]
    downs = [score for score, is_positive in zip(scores, positive, strict=True) if not is_positive]
    won = sum((up > down) + (up == down) / 2 for up in ups for down in downs)
    return won / (len(ups) * len(downs))


def _rule_figures(tasks: Sequence[Task], lang: Language) -> list[str]:
    def hits(task: Task) -> bool:
        labels = named_labels(task.instruction, lang)
        return bool(labels) and all(label_of(each.output, labels) for each in task.instances)

    kinds = {kind: [task for task in tasks if bool(task.is_classification) == kind] for kind in (True, False)}
    return [f"{sum(map(hits, kinds[kind]))} of {len(kinds[kind])}" for kind in (True, False)]


if __name__ == "__main__":
    main()

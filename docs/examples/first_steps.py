"""The pipeline in one script: filter tasks, write a report on them, fine-tune on them, query the tuned model.

    python docs/examples/first_steps.py OUT [--generate 50] [--steps 20]

Without `--generate` the built-in seeds replace generated tasks, so that no engine is needed.
"""

import argparse
from pathlib import Path

import selfinstruct_local as si
from selfinstruct_local.evaluate.chat import Chat
from selfinstruct_local.models import prepare_embedded
from selfinstruct_local.seeds import seed_file


def main() -> None:
    """Run the pipeline with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--generate", type=int, default=0, metavar="N", help="New tasks to generate first (vLLM).")
    parser.add_argument("--steps", type=int, default=20, help="Number of optimizer steps.")
    options = parser.parse_args()

    source: Path = seed_file()
    if options.generate:
        made = si.generate_tasks(options.out / "run", num=options.generate)
        print(f"{len(made.tasks)} tasks; rejected: {made.rejected}")
        source = options.out / "run"

    tasks = si.load_tasks(source)
    copies = [task._replace(instruction=f"{task.instruction} Please.") for task in tasks]
    kept, rejected = si.filter_tasks([*tasks, *copies], rules="none")
    task, verdict = rejected[0]
    print(f"{len(kept)} kept, {len(rejected)} rejected; {task.instruction!r}: {verdict.rule}, {verdict.detail}")

    (figures,) = si.make_report([source], options.out / "report.html")
    print(f"{options.out / 'report.html'}: {figures.kept} tasks, by script {figures.scripts}")

    result = si.train_model([source], options.out / "tuned", preset="demo-cpu", max_steps=options.steps, max_length=512)
    print(f"loss {result.losses[0][2]:.2f} -> {result.losses[-1][2]:.2f} in {len(result.losses)} steps")

    chat = Chat(prepare_embedded(), options.out / "tuned")
    print(chat.answer("Name three rivers in Europe.", max_tokens=32))


if __name__ == "__main__":
    main()

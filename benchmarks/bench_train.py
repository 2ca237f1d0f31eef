"""Training without padding against a plain `transformers.Trainer` set up as the published recipe, step by step.

    python benchmarks/bench_train.py [--data alpaca.jsonl] [--records 2000] [--steps 24] [--batch 8 4] [--write]

Both train all weights of the embedded model on the same records, with the same examples in each step: the peer pads
each batch to its longest example, as the published train.py does, and puts the head over every token; ours leaves
padding out and puts the head over supervised tokens. The losses of each step are compared, then its times: the figure
is supervised tokens a second over those of the peer, and beside it stands the median of the steps. Each arm runs in a
process of its own, one after the other, with as many threads as there are cores; its first steps warm up and are not
counted.

Packing is another order of examples; of it only the supervised tokens a second can be told.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results import machine, pin_threads, table, write_section

from selfinstruct_local.seeds import seed_file

TITLE = "Training without padding"
WARM_UP = 3
THREADS = len(os.sched_getaffinity(0))
LENGTH = 512
RECIPE = {"learning_rate": 2e-5, "warmup_ratio": 0.03, "method": "full", "epochs": 3.0, "max_length": LENGTH}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=seed_file(), help="records in Alpaca's format; the seeds when left out"
    )
    parser.add_argument("--records", type=int, default=2_000, help="of the file's first, by which all arms are drawn")
    parser.add_argument("--steps", type=int, default=24, help="optimizer steps of each arm")
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 4], help="examples in a step")
    parser.add_argument("--write", action="store_true", help="put the section into RESULTS.md")
    parser.add_argument("--arm", nargs=2, metavar=("NAME", "BATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        name, batch = options.arm
        print(json.dumps(run_arm(name, int(batch), options.data, options.records, options.steps)))
        return
    report = compare(options)
    if options.write:
        write_section(TITLE, report)
    else:
        print(report)


def compare(options: argparse.Namespace) -> str:
    """Runs all arms and gives the report."""
    rows = []
    for batch in options.batch:
        plain, ours, packed = (_in_process(name, batch, options) for name in ("plain", "padding-free", "packed"))
        if plain["supervised"] != ours["supervised"]:
            message = "the two arms did not see the same examples"
            raise SystemExit(message)
        ratios = [slow / fast for slow, fast in zip(_counted(plain), _counted(ours), strict=True)]
        apart = max(abs(one - other) for one, other in zip(plain["losses"], ours["losses"], strict=True))
        rows.append(
            [
                batch,
                f"{plain['tokens'] / plain['cells']:.0%}",
                f"{_rate(plain):.0f}",
                f"{_rate(ours):.0f}",
                f"{_rate(ours) / _rate(plain):.1f}",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                f"{apart:.0e}",
                f"{_rate(packed):.0f}",
            ]
        )
    head = [
        "examples a step",
        "of its batches no padding",
        "plain Trainer",
        "ours",
        "times faster",
        "of a step",
        "losses apart",
        "packed",
    ]
    return (
        f"{machine()}. {THREADS} threads, float32, all weights of the embedded model, {options.steps} steps over the "
        f"first {options.records:,} records, {WARM_UP} of which warm up. Supervised tokens a second; of a step is the "
        "peer's time over ours, median with least and most, where steps have the same examples; losses apart is the "
        f"largest difference of the loss of a step.\n\n{table(head, rows)}"
    )


def _counted(arm: dict[str, Any]) -> list[float]:
    return [float(seconds) for seconds in arm["seconds"][WARM_UP:]]


def _rate(arm: dict[str, Any]) -> float:
    return float(sum(arm["supervised"][WARM_UP:]) / sum(_counted(arm)))


def _in_process(name: str, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--data", options.data, "--records", options.records, "--steps", options.steps]
    done = subprocess.run(
        [*map(str, command), "--arm", name, str(batch)], check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run_arm(name: str, batch: int, file: Path, records: int, steps: int) -> dict[str, Any]:
    """Trains one arm; gives by step its seconds, loss and supervised tokens, and how full its batches were."""
    pin_threads(THREADS)
    from transformers import Trainer

    from selfinstruct_local.models import prepare_embedded
    from selfinstruct_local.offline import go_offline
    from selfinstruct_local.train import trainer as trainers
    from selfinstruct_local.train.data import build_examples
    from selfinstruct_local.train.network import load_network
    from selfinstruct_local.train.settings import TrainSettings
    from selfinstruct_local.train.sources import read_samples

    go_offline()
    model = prepare_embedded()
    settings = TrainSettings(
        batch_size=batch, max_steps=steps, batching="padding-free" if name == "plain" else name, **RECIPE
    )
    if name == "packed":  # rows as long as the longest example that may come, so that a step has about as many tokens
        settings = settings.model_copy(update={"batch_size": 1})
    tokenizer = trainers.load_tokenizer(model)
    data = build_examples(itertools.islice(read_samples(file), records), tokenizer, settings)
    seen: list[tuple[int, int, int]] = []
    collate: Any = None  # made once the network is there

    def collate_and_count(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        examples = [example for row in rows for example in row["examples"]]
        inputs: dict[str, Any] = collate(rows)
        tokens = sum(len(example.input_ids) for example in examples)
        seen.append((tokens, inputs["input_ids"].numel(), sum(example.supervised for example in examples)))
        return inputs

    with tempfile.TemporaryDirectory() as folder:
        arguments = trainers.make_arguments(Path(folder), settings, validates=False)
        arguments.save_strategy = "no"
        clock = make_clock()
        network = load_network(model, settings, arguments)
        collate = (
            Padded(tokenizer.eos_token_id)
            if name == "plain"
            else trainers.make_collator(network, tokenizer, settings, print)
        )
        trainer = Trainer(
            model=network,
            args=arguments,
            data_collator=collate_and_count,
            train_dataset=trainers.make_rows(data.examples, settings),
            callbacks=[clock],
        )
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    tokens, cells, supervised = zip(*seen[:steps], strict=True)
    return {
        "seconds": clock.seconds,
        "losses": losses,
        "supervised": supervised,
        "tokens": sum(tokens),
        "cells": sum(cells),
    }


def make_clock() -> Any:
    """A callback with the seconds of each optimizer step in `seconds`."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self._begun = 0.0

        def on_step_begin(self, *_args: Any, **_kwargs: Any) -> None:
            self._begun = time.perf_counter()

        def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
            self.seconds.append(time.perf_counter() - self._begun)

    return Clock()


class Padded:
    """As the collator of the published train.py: padded on the right, and what is not padding attends."""

    def __init__(self, padding: int) -> None:
        self._padding = padding

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """`input_ids`, `attention_mask` and `labels` of shape (batch, longest)."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        examples = [example for row in rows for example in row["examples"]]
        ids = [torch.tensor(example.input_ids) for example in examples]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self._padding),
            "attention_mask": pad_sequence([torch.ones_like(each) for each in ids], batch_first=True),
            "labels": pad_sequence(
                [torch.tensor(example.labels) for example in examples], batch_first=True, padding_value=-100
            ),
        }


if __name__ == "__main__":
    main()

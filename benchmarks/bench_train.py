"""Padding-free training compared with a plain `transformers.Trainer` set up like the published recipe, step by step.

    python benchmarks/bench_train.py [--data alpaca.jsonl] [--records 2000] [--steps 24] [--batch 8 4] [--write]

Both train all weights of the embedded model on the same records, with the same examples in each step. The peer pads
each batch to its longest example, as the published train.py does, and applies the LM head to every token. Our trainer
is padding-free and applies the head only to trainable tokens. The losses of each step are compared, then the times: the
figures are trainable tokens per second relative to the peer, and the median ratio of the step times. The arms run one
after the other, each in its own process, with as many threads as there are cores; the first steps of each are a warm-up
and not counted.

Packing orders the examples differently, so only its trainable tokens per second are reported.
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

TITLE = "Padding-free training"
WARM_UP = 3
THREADS = len(os.sched_getaffinity(0))
LENGTH = 512
RECIPE = {"learning_rate": 2e-5, "warmup_ratio": 0.03, "method": "full", "epochs": 3.0, "max_length": LENGTH}


def main() -> None:
    """Parse the options, run all arms, and print the section or write it to RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=seed_file(), help="records in Alpaca's format (default: the seeds)"
    )
    parser.add_argument("--records", type=int, default=2_000, help="first records of the file to train on")
    parser.add_argument("--steps", type=int, default=24, help="optimizer steps per arm")
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 4], help="examples per step")
    parser.add_argument("--write", action="store_true", help="write the section to RESULTS.md")
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
    """Run all arms and return the section."""
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
        "examples per step",
        "peer's batches without padding",
        "plain Trainer",
        "ours",
        "times faster",
        "per step",
        "loss difference",
        "packed",
    ]
    return (
        f"{machine()}. {THREADS} threads, float32, all weights of the embedded model, {options.steps} steps over the "
        f"first {options.records:,} records, {WARM_UP} of which are a warm-up. Trainable tokens per second. Per step: "
        "the peer's time over ours, median with minimum and maximum, for steps of the same examples. Loss difference: "
        f"the largest difference of the loss of a step.\n\n{table(head, rows)}"
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
    """Train one arm; return seconds, losses and trainable tokens by step, and the tokens and cells of its batches."""
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
    if name == "packed":  # one row of the maximum length of an example, so that a step has about as many tokens
        settings = settings.model_copy(update={"batch_size": 1})
    tokenizer = trainers.load_tokenizer(model)
    data = build_examples(itertools.islice(read_samples(file), records), tokenizer, settings)
    seen: list[tuple[int, int, int]] = []
    collate: Any = None  # created when the network is loaded

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
    """Return a callback that records the seconds of each optimizer step in `seconds`."""
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
    """The collator of the published train.py: pads on the right and masks the padding in the attention."""

    def __init__(self, padding: int) -> None:
        self._padding = padding

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return `input_ids`, `attention_mask` and `labels` of shape (batch, longest)."""
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

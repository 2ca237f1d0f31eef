"""The held-out loss: how unlikely the references are to a model that is asked by its own template.

Cases become examples as `train` makes them, so the loss is on what a training would teach: the response and its end.
Leans on torch and transformers, in batches without padding.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from selfinstruct_local.errors import WrongUseError
from selfinstruct_local.evaluate.cases import Case
from selfinstruct_local.evaluate.contenders import Contender
from selfinstruct_local.train.batches import PaddingFreeCollator
from selfinstruct_local.train.data import IGNORED, Example, build_examples
from selfinstruct_local.train.settings import TrainSettings
from selfinstruct_local.train.template import TemplateName

ROW_TOKENS = 2_048  # of a batch, unless one example has more


class Surprise(NamedTuple):
    """What a reference costs a model.

    Attributes:
        nats: negative log-likelihood of its supervised tokens together.
        tokens: how many these are; the end is one of them.
    """

    nats: float
    tokens: int


def build_references(cases: Sequence[Case], contender: Contender) -> list[Example | None]:
    """The example of each case under the contender's template; None where it makes none.

    Raises:
        WrongUseError: the tokenizer cannot be loaded, or has no end-of-sequence token.
    """
    from selfinstruct_local.train.trainer import load_tokenizer

    tokenizer = load_tokenizer(contender.folder)
    found: list[Example | None] = [None] * len(cases)
    for verbatim in (False, True):
        # The template of a text prompt is nothing around it, which is what Alpaca's leaves of it.
        template: TemplateName = "alpaca" if verbatim else contender.template
        places = [index for index, case in enumerate(cases) if case.sample.verbatim == verbatim]
        examples = _build([cases[index] for index in places], tokenizer, template)
        for index, example in zip(places, examples, strict=True):
            found[index] = example
    return found


def _build(cases: Sequence[Case], tokenizer: Any, template: TemplateName) -> list[Example | None]:
    """An example or None for each case; what `build_examples` drops is found by halving, since it is seldom any."""
    settings = TrainSettings(template=template, max_length=sys.maxsize)
    built = build_examples([case.sample for case in cases], tokenizer, settings).examples
    if len(built) == len(cases):
        return list(built)
    if len(cases) == 1:
        return [None]
    middle = len(cases) // 2
    return [*_build(cases[:middle], tokenizer, template), *_build(cases[middle:], tokenizer, template)]


def prompt_length(example: Example) -> int:
    """Tokens before the response."""
    return next(index for index, label in enumerate(example.labels) if label != IGNORED)


def measure_losses(
    contender: Contender, examples: Sequence[Example], keep_going: Callable[[], bool]
) -> Iterator[list[Surprise]]:
    """Loads the contender, and yields what the references cost it, in batches and in order, while it may go on.

    In float32 on a CPU; in the precision of the weights on GPUs, over as many as there are.

    Raises:
        WrongUseError: the training libraries are missing.
    """
    import torch
    from torch.nn.functional import cross_entropy

    if not keep_going():
        return
    network = _load(contender)
    collate = PaddingFreeCollator()
    for batch in _batches(examples):
        if not keep_going():
            return
        row = collate([{"examples": batch}])
        targets = row["shift_labels"][0]  # (K,)
        tensors = {name: row[name].to(network.device) for name in ("input_ids", "position_ids")}
        # It picks from what the last GPU holds, and from the CPU it may pick of any.
        tensors["logits_to_keep"] = row["logits_to_keep"]
        with torch.no_grad():
            # With a cache the positions that start anew would not part the examples.
            logits = network(**tensors, use_cache=False).logits[0]  # (K, V)
            nats = cross_entropy(logits.float(), targets.to(logits.device), reduction="none")
        parts = torch.split(nats, [example.supervised for example in batch])
        yield [Surprise(float(part.double().sum()), part.numel()) for part in parts]


def _load(contender: Contender) -> Any:
    try:
        import torch
        from transformers import AutoModelForCausalLM

        if contender.adapter:
            from peft import PeftModel
    except ImportError as error:
        message = f"the loss needs '{error.name}', which is missing; install this package with its extra 'train'"
        raise WrongUseError(message) from error
    # What the engine held on several GPUs would not go onto one.
    options = {"dtype": "auto", "device_map": "auto"} if torch.cuda.is_available() else {"dtype": torch.float32}
    network: Any = AutoModelForCausalLM.from_pretrained(contender.folder.path, local_files_only=True, **options)
    if contender.adapter:
        network = PeftModel.from_pretrained(network, str(contender.adapter))
    return network.eval()


def _batches(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """Runs of examples of at most `ROW_TOKENS` tokens together, each example whole."""
    batch: list[Example] = []
    length = 0
    for example in examples:
        if batch and length + len(example.input_ids) > ROW_TOKENS:
            yield batch
            batch, length = [], 0
        batch.append(example)
        length += len(example.input_ids)
    if batch:
        yield batch

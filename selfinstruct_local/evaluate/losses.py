"""The held-out loss: the negative log-likelihood of the references under a model with its own prompt template.

Cases become examples as in `train`, so the loss covers what training would teach: the response and its end. Batches
have no padding.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from selfinstruct_local.errors import UsageError
from selfinstruct_local.evaluate.cases import Case
from selfinstruct_local.evaluate.evaluated_models import EvaluatedModel
from selfinstruct_local.models.vocabulary import check_tokens
from selfinstruct_local.train.batches import PaddingFreeCollator
from selfinstruct_local.train.data import IGNORED, Example, make_examples
from selfinstruct_local.train.network import lay_over
from selfinstruct_local.train.separation import separates_examples
from selfinstruct_local.train.settings import TrainSettings

ROW_TOKENS = 2_048  # per batch, unless one example has more


class Surprise(NamedTuple):
    """The loss of a reference under a model.

    Attributes:
        nats: summed negative log-likelihood of its supervised tokens.
        tokens: number of supervised tokens, including the end.
    """

    nats: float
    tokens: int


def build_references(cases: Sequence[Case], evaluated: EvaluatedModel) -> list[Example | str]:
    """Return the example of each case under the model's template, or why there is none.

    Raises:
        UsageError: the tokenizer cannot be loaded, or has no end-of-sequence token.
    """
    from selfinstruct_local.train.trainer import load_tokenizer

    tokenizer = load_tokenizer(evaluated.folder)
    found: list[Example | str] = [""] * len(cases)
    for verbatim in (False, True):
        # A verbatim prompt has no template around it, which is what Alpaca's template does with it.
        settings = TrainSettings(template="alpaca" if verbatim else evaluated.template, max_length=sys.maxsize)
        places = [index for index, case in enumerate(cases) if case.sample.verbatim == verbatim]
        made = make_examples((cases[index].sample for index in places), tokenizer, settings)
        for index, example in zip(places, made, strict=True):
            found[index] = example
    check_tokens((each.input_ids for each in found if not isinstance(each, str)), evaluated.folder, "--data")
    return found


def prompt_length(example: Example) -> int:
    """Return the number of tokens before the response."""
    return next(index for index, label in enumerate(example.labels) if label != IGNORED)


def measure_losses(
    evaluated: EvaluatedModel, examples: Sequence[Example], keep_going: Callable[[], bool]
) -> Iterator[list[Surprise]]:
    """Load the model and yield the losses of its references, in batches and in order, while `keep_going` returns True.

    The precision is float32 on a CPU and that of the weights on GPUs; all available GPUs are used.

    Raises:
        UsageError: the training libraries are missing.
    """
    if not keep_going():
        return
    network = _load(evaluated)
    separates = separates_examples(network)
    for batch in _batches(examples, ROW_TOKENS if separates else 0):
        if not keep_going():
            return
        yield _measure(network, batch, separates=separates)


def _measure(network: Any, batch: Sequence[Example], *, separates: bool) -> list[Surprise]:
    """Return the losses of a batch, which has one example if the model cannot separate the examples of a row."""
    import torch
    from torch.nn.functional import cross_entropy

    row = PaddingFreeCollator()([{"examples": batch}])
    targets = row["shift_labels"][0]  # (K,)
    tensors: dict[str, Any] = {"input_ids": row["input_ids"].to(network.device)}
    if separates:
        # The indices apply to what the last GPU holds; indices on the CPU work with any GPU.
        tensors |= {"position_ids": row["position_ids"].to(network.device), "logits_to_keep": row["logits_to_keep"]}
    with torch.no_grad():
        # With a cache, restarting positions would not separate the examples.
        logits = network(**tensors, use_cache=False).logits[0]  # (K, V), or (T, V) for one example
        kept = logits if separates else logits[row["logits_to_keep"].to(logits.device)]
        nats = cross_entropy(kept.float(), targets.to(kept.device), reduction="none")
    parts = torch.split(nats, [example.supervised for example in batch])
    return [Surprise(float(part.double().sum()), part.numel()) for part in parts]


def _load(evaluated: EvaluatedModel) -> Any:
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        message = f"the loss needs '{error.name}', which is missing; install this package with its extra 'train'"
        raise UsageError(message) from error
    # A model that the engine needed several GPUs for exceeds the memory of one.
    options = {"dtype": "auto", "device_map": "auto"} if torch.cuda.is_available() else {"dtype": torch.float32}
    network: Any = AutoModelForCausalLM.from_pretrained(evaluated.folder.load_path, local_files_only=True, **options)
    if evaluated.adapter:
        network = lay_over(network, evaluated.folder, evaluated.adapter)
    return network.eval()


def _batches(examples: Sequence[Example], row_tokens: int) -> Iterator[list[Example]]:
    """Yield batches of consecutive examples with at most `row_tokens` tokens in total; examples are not split."""
    batch: list[Example] = []
    length = 0
    for example in examples:
        if batch and length + len(example.input_ids) > row_tokens:
            yield batch
            batch, length = [], 0
        batch.append(example)
        length += len(example.input_ids)
    if batch:
        yield batch

"""The tokens of a model against the rows of its embeddings: a token without a row ends a training or an engine.

Tokens are added to a tokenizer and the embeddings are not enlarged, or tokenizer and weights are of two models. No
weights are loaded here: the header of a safetensors file tells the rows.
"""

from collections.abc import Iterable, Sequence
from math import ceil

from selfinstruct_local.errors import UsageError
from selfinstruct_local.models.folder import ModelFolder
from selfinstruct_local.models.headers import TornFileError, read_header
from selfinstruct_local.models.tokens import read_special_tokens, read_vocabulary

# How the architectures of transformers and the checkpoints of Meta name the matrix of input embeddings.
_EMBEDDINGS = (
    "embed_tokens.weight",
    "tok_embeddings.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "wte.weight",
    "backbone.embeddings.weight",
)
_SHOWN = 3
_ADVICE = "take tokenizer and weights from the same model"


def embedding_rows(model: ModelFolder) -> int | None:
    """Return the rows of a model's input embeddings, None if no tensor of a known name tells."""
    for file in model.weight_files:
        try:
            for name, _, shape, _ in read_header(file):
                if name.endswith(_EMBEDDINGS) and len(shape) == 2:  # noqa: PLR2004 - (tokens, width)
                    return shape[0]
        except (TornFileError, OSError):  # the loader or the doctor reports it
            continue
    return None


def check_tokens(examples: Iterable[Sequence[int]], model: ModelFolder, what: str) -> None:
    """Refuse token ids that the embeddings have no row for.

    Args:
        examples: token ids.
        model: whose embeddings will be asked for them.
        what: holds them, for the error.

    Raises:
        UsageError: an id is too large.
    """
    rows = embedding_rows(model)
    if rows is not None:
        _check_highest(examples, model, what, rows)


def check_training_tokens(examples: Iterable[Sequence[int]], model: ModelFolder, pad_vocab_to: int = 0) -> None:
    """Refuse a training whose examples, or any other text, hold tokens that the embeddings have no row for.

    What is trained would end at such a text even if no example holds one. Special tokens are never read from text, so
    those that were added for padding are no obstacle.

    Args:
        examples: token ids.
        model: the base.
        pad_vocab_to: its embeddings are enlarged to a multiple of this; 0 leaves them.

    Raises:
        UsageError: an example or a text could hold one.
    """
    rows = embedding_rows(model)
    if rows is None:
        return
    if pad_vocab_to:
        rows = ceil(rows / pad_vocab_to) * pad_vocab_to
    _check_highest(examples, model, "--data", rows)
    special = read_special_tokens(model.load_path)
    if readable := [(number, token) for number, token in _surplus(model, rows) if token not in special]:
        number, token = readable[0]
        message = (
            f"--model {model.path}: its tokenizer reads text as token {number} ({token!r}), and the embeddings have "
            f"{rows:,} rows; {_ADVICE}"
        )
        raise UsageError(message)


def describe_surplus(model: ModelFolder) -> str | None:
    """Return a line about the tokens that the embeddings have no row for, None if there are none."""
    rows = embedding_rows(model)
    surplus = _surplus(model, rows) if rows is not None else []
    if not surplus:
        return None
    shown = ", ".join(repr(token) for _, token in surplus[:_SHOWN]) + (", ..." if len(surplus) > _SHOWN else "")
    return (
        f"its tokenizer has {len(surplus):,} tokens ({shown}) beyond the {rows:,} rows of its embeddings; a text that "
        f"holds one is refused; {_ADVICE}"
    )


def _check_highest(examples: Iterable[Sequence[int]], model: ModelFolder, what: str, rows: int) -> None:
    highest = max((max(ids, default=0) for ids in examples), default=0)
    if highest >= rows:
        names = [token for token, number in read_vocabulary(model.load_path).items() if number == highest]
        shown = f" ({names[0]!r})" if names else ""
        message = (
            f"{what}: holds token {highest}{shown}, and the embeddings of {model.path} have {rows:,} rows; {_ADVICE}"
        )
        raise UsageError(message)


def _surplus(model: ModelFolder, rows: int) -> list[tuple[int, str]]:
    """Return number and text of the tokens beyond the rows, in order."""
    return sorted((number, token) for token, number in read_vocabulary(model.path).items() if number >= rows)

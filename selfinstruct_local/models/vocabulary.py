"""Check that each token of a model has an embedding row; a token without one crashes a training or an engine.

The usual causes are tokens that were added to the tokenizer without enlarging the embeddings, and a tokenizer of
another model. No weights are loaded: the header of a safetensors file has the number of rows.
"""

from collections.abc import Iterable, Sequence
from math import ceil

from selfinstruct_local.errors import UsageError
from selfinstruct_local.models.folder import ModelFolder
from selfinstruct_local.models.headers import TornFileError, read_header
from selfinstruct_local.models.tokens import read_special_tokens, read_vocabulary

# Names of the input embedding matrix in transformers' architectures and in Meta's checkpoints.
_EMBEDDINGS = (
    "embed_tokens.weight",
    "tok_embeddings.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "wte.weight",
    "backbone.embeddings.weight",
)
_SHOWN = 3
_ADVICE = "use tokenizer and weights of the same model"


def embedding_rows(model: ModelFolder) -> int | None:
    """Return the number of rows of a model's input embeddings, or None if no tensor has a known name."""
    for file in model.weight_files:
        try:
            for name, _, shape, _ in read_header(file):
                if name.endswith(_EMBEDDINGS) and len(shape) == 2:  # noqa: PLR2004 - (tokens, width)
                    return shape[0]
        except (TornFileError, OSError):  # the loader or the doctor reports it
            continue
    return None


def check_tokens(examples: Iterable[Sequence[int]], model: ModelFolder, what: str) -> None:
    """Raise UsageError if a token id has no embedding row.

    Args:
        examples: token ids of each example.
        model: the model whose embeddings are used.
        what: source of the examples, for the message.

    Raises:
        UsageError: an id is too large.
    """
    rows = embedding_rows(model)
    if rows is not None:
        _check_highest(examples, model, what, rows)


def check_training_tokens(examples: Iterable[Sequence[int]], model: ModelFolder, pad_vocab_to: int = 0) -> None:
    """Raise UsageError if the examples, or any other text, can contain tokens without an embedding row.

    The trained model would crash on such a text even if no example has one. Special tokens are never tokenised from
    text, so tokens added for padding are allowed.

    Args:
        examples: token ids of each example.
        model: base model.
        pad_vocab_to: multiple that the embeddings are enlarged to; 0 keeps their size.

    Raises:
        UsageError: an example has such a token, or a text could.
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
            f"--model {model.path}: its tokenizer can return token {number} ({token!r}), but the embeddings have "
            f"{rows:,} rows; {_ADVICE}"
        )
        raise UsageError(message)


def describe_surplus(model: ModelFolder) -> str | None:
    """Return a line about the tokens without an embedding row, or None if there are none."""
    rows = embedding_rows(model)
    surplus = _surplus(model, rows) if rows is not None else []
    if not surplus:
        return None
    shown = ", ".join(repr(token) for _, token in surplus[:_SHOWN]) + (", ..." if len(surplus) > _SHOWN else "")
    return (
        f"its tokenizer has {len(surplus):,} tokens ({shown}) without a row in its embeddings ({rows:,} rows); texts "
        f"with such tokens are rejected; {_ADVICE}"
    )


def _check_highest(examples: Iterable[Sequence[int]], model: ModelFolder, what: str, rows: int) -> None:
    highest = max((max(ids, default=0) for ids in examples), default=0)
    if highest >= rows:
        names = [token for token, number in read_vocabulary(model.load_path).items() if number == highest]
        shown = f" ({names[0]!r})" if names else ""
        message = (
            f"{what}: has token {highest}{shown}, but the embeddings of {model.path} have {rows:,} rows; {_ADVICE}"
        )
        raise UsageError(message)


def _surplus(model: ModelFolder, rows: int) -> list[tuple[int, str]]:
    """Return (id, text) of the tokens without a row, sorted."""
    return sorted((number, token) for token, number in read_vocabulary(model.path).items() if number >= rows)

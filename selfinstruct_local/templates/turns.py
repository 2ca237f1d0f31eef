"""Turns of a conversation, and the prompt of a completion."""

from typing import Literal, NamedTuple, Protocol, TypeAlias


class Turn(NamedTuple):
    """A turn of a conversation; `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


Role: TypeAlias = Literal["assistant", "user"]


class Prompt(Protocol):
    """A text to continue or a conversation; `engines.Request` implements it."""

    @property
    def prompt(self) -> str:
        """The text that the completion follows; with `turns`, the beginning of the generated turn."""

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation so far, which the model's chat template renders."""

    @property
    def role(self) -> Role:
        """The role of the generated turn."""

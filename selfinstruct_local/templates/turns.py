"""Turns of a conversation, and what a completion follows."""

from typing import Literal, NamedTuple, Protocol, TypeAlias


class Turn(NamedTuple):
    """A turn of a conversation: `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


Role: TypeAlias = Literal["assistant", "user"]


class Prompt(Protocol):
    """A text to continue, or a conversation; `engines.Request` is one."""

    @property
    def prompt(self) -> str:
        """The text that the completion follows; with `turns`, the beginning of the turn that is written."""

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation so far; the model's chat template is put around it."""

    @property
    def role(self) -> Role:
        """Whose turn is written."""

"""The hand-written seed tasks that the package carries, one JSONL file a language."""

from importlib import resources
from pathlib import Path


def seed_file(language: str = "en") -> Path:
    """Where the seeds of `language` lie on disk.

    Raises:
        FileNotFoundError: there are no seeds in that language.
    """
    path = Path(str(resources.files(__name__).joinpath(f"{language}.jsonl")))
    if not path.is_file():
        message = f"no seeds for language {language!r}"
        raise FileNotFoundError(message)
    return path

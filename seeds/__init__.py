"""The hand-written seed tasks of the package, one JSONL file per language."""

from importlib import resources
from pathlib import Path


def seed_file(language: str = "en") -> Path:
    """Return the path of the seed file for `language`.

    Raises:
        FileNotFoundError: the package has no seeds in that language.
    """
    path = Path(str(resources.files(__name__).joinpath(f"{language}.jsonl")))
    if not path.is_file():
        message = f"no seeds for language {language!r}"
        raise FileNotFoundError(message)
    return path

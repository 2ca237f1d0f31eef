"""The prompt templates, one text file each, and their loader.

A template holds `$name` where data goes (`string.Template`). The data is put in as it is: braces, dollars
and special-token text inside it are never read as part of the template.
"""

from importlib import resources
from string import Template


def load_prompt(name: str) -> Template:
    """The template in `prompts/NAME.txt`, without its last line break.

    Raises:
        FileNotFoundError: there is no such template.
    """
    text = resources.files(__name__).joinpath(f"{name}.txt").read_text(encoding="utf-8")
    return Template(text.removesuffix("\n"))

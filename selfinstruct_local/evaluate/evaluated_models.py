"""The models to compare: model folders, and adapters over their bases, each with its own prompt template."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfinstruct_local.engines.base import Request, RequestKey, Sampling
from selfinstruct_local.errors import UsageError
from selfinstruct_local.evaluate.cases import Case
from selfinstruct_local.evaluate.chat import choose_template
from selfinstruct_local.generate.launch import ChosenModel
from selfinstruct_local.models import ModelFolder, find_model
from selfinstruct_local.models.adapter import ADAPTER_FILES, base_of
from selfinstruct_local.templates.alpaca import TemplateName, ask


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A model, or an adapter over one, and its prompt template.

    Attributes:
        name: unique name for tables.
        folder: the model, or the adapter's base.
        adapter: a LoRA folder, or None.
        template: Alpaca's template, or the model's chat template.
    """

    name: str
    folder: ModelFolder
    adapter: Path | None
    template: TemplateName

    @property
    def chosen(self) -> ChosenModel:
        """Return the model that an engine is started with."""
        return ChosenModel(self.folder, adapter=self.adapter)

    def request(self, key: RequestKey, case: Case, max_tokens: int) -> Request:
        """Return the request for its greedy answer to a case."""
        sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=max_tokens)
        if case.sample.verbatim:
            return Request(key, case.instruction, sampling)
        prompt, turns = ask(self.template, case.instruction, case.sample.input)
        return Request(key, prompt, sampling, turns)


def find_evaluated_models(
    names: Sequence[str], template: TemplateName | None = None, base: str | None = None, flag: str = "--model"
) -> list[EvaluatedModel]:
    """Return the models that flags name, in their order.

    Args:
        names: folders of models or adapters, or names of prepared models.
        template: template for all of them; None uses `choose_template` for each.
        base: base of the adapters; None uses the one that each adapter names.
        flag: flag that errors name.

    Raises:
        UsageError: a model is missing, incomplete or unsafe, has no base here, or is named twice; or the template is
            missing.
    """
    found = [_find(name, base, flag) for name in names]
    if twice := [name for name, count in Counter(found).items() if count > 1]:
        message = f"{flag} {twice[0][1] or twice[0][0].path}: is named twice"
        raise UsageError(message)
    short = [(adapter or folder.path).name for folder, adapter in found]
    return [
        EvaluatedModel(
            own if short.count(own) == 1 else str(adapter or folder.path),
            folder,
            adapter,
            choose_template(folder, adapter, template),
        )
        for own, (folder, adapter) in zip(short, found, strict=True)
    ]


def _find(name: str, base: str | None, flag: str) -> tuple[ModelFolder, Path | None]:
    adapter = Path(name).expanduser().resolve()
    if not (adapter / ADAPTER_FILES[0]).is_file():
        return find_model(name, flag), None
    return base_of(adapter, base, flag=flag, base_flag="--base"), adapter

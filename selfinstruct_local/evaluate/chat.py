"""A loaded model that answers single questions, fine-tuned or not.

Uses transformers and PEFT instead of vLLM: a single answer is ready before vLLM would have started.
"""

from pathlib import Path
from typing import Any

from selfinstruct_local.engines.base import Request, RequestKey, Sampling
from selfinstruct_local.errors import UsageError
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.models.adapter import check_base, read_manifest
from selfinstruct_local.models.vocabulary import check_tokens
from selfinstruct_local.templates.alpaca import TemplateName, ask
from selfinstruct_local.templates.conversation import PromptEncoder
from selfinstruct_local.train.data import answer_end
from selfinstruct_local.train.network import end_with, lay_over


def choose_template(model: ModelFolder, adapter: Path | None, wanted: TemplateName | None = None) -> TemplateName:
    """Return the prompt template for a model.

    A model that was fine-tuned here uses the template of its training, an adapter from elsewhere Alpaca's. Any other
    model uses its chat template if it has one, otherwise Alpaca's.

    Args:
        model: the base model.
        adapter: a LoRA folder over it.
        wanted: template to use instead, where possible.

    Raises:
        UsageError: the chat template is wanted, and the model has none; or the training manifest is invalid.
    """
    if wanted == "chat" and not model.has_chat_template:
        message = f"--template chat: {model.path} has no chat template; use --template alpaca"
        raise UsageError(message)
    manifest = read_manifest(adapter) if adapter else read_manifest(model.path, "--model")
    trained: TemplateName | None = manifest.get("template")
    return wanted or trained or ("chat" if model.has_chat_template and adapter is None else "alpaca")


class Chat:
    """A loaded model that answers single instructions."""

    def __init__(self, model: ModelFolder, adapter: Path | None = None, template: TemplateName | None = None) -> None:
        """Load the model, and the adapter over it.

        Args:
            model: the base model.
            adapter: a LoRA folder.
            template: prompt template; None uses `choose_template`.

        Raises:
            UsageError: the template is missing, the adapter was trained on another base or does not match this one, or
                the libraries are missing.
        """
        if adapter is not None:
            check_base(adapter, model)
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            message = f"chat needs '{error.name}', which is missing; install this package with its extra 'train'"
            raise UsageError(message) from error
        self._torch = torch
        self._model = model
        self.template = choose_template(model, adapter, template)
        self._tokenizer = AutoTokenizer.from_pretrained(model.load_path, local_files_only=True)
        self._encoder = PromptEncoder(self._tokenizer, model.path.name)
        network: Any = AutoModelForCausalLM.from_pretrained(model.load_path, dtype="auto", local_files_only=True)
        if adapter is not None:
            network = lay_over(network, model, adapter)
        # A model that was fine-tuned with a chat template ends its turns as the template does, regardless of the base's
        # files.
        if self.template == "chat":
            end_with(network, answer_end(self._tokenizer, "chat"))
        self._network = network.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    def answer(self, instruction: str, task_input: str = "", max_tokens: int = 256) -> str:
        """Return the greedy answer, without the prompt; the prompt's tokens are the same as in training.

        Raises:
            UsageError: the chat template rejects the question, the question has tokens without an embedding, or it
                leaves no room in the model's context.
        """
        prompt, turns = ask(self.template, instruction, task_input)
        request = Request(RequestKey(0, "chat", 0), prompt, Sampling(0.0, 1.0, max_tokens), turns)
        ids = self._encoder.encode(request)
        check_tokens([ids], self._model, "the question")
        room = self._model.context - len(ids)
        if room < 1:
            message = (
                f"the question takes {len(ids)} tokens: {self._model.path.name} has a context of "
                f"{self._model.context}; shorten it"
            )
            raise UsageError(message)
        asked = self._torch.tensor([ids], device=self._network.device)  # (1, T)
        with self._torch.inference_mode():
            output = self._network.generate(
                input_ids=asked,
                attention_mask=self._torch.ones_like(asked),
                max_new_tokens=min(max_tokens, room),
                do_sample=False,
                pad_token_id=self._tokenizer.eos_token_id,
            )
        written = output[0, asked.shape[1] :]
        return str(self._tokenizer.decode(written, skip_special_tokens=True)).strip()

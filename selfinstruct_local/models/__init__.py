"""Model folders: checks before loading, and conversion from GGUF or pickle weights."""

from selfinstruct_local.models.folder import ModelFolder, check_model_folder, find_model
from selfinstruct_local.models.pickles import prepare_adapter, prepare_pickle
from selfinstruct_local.models.prepare import EMBEDDED_NAME, prepare_embedded, prepare_gguf

__all__ = [
    "EMBEDDED_NAME",
    "ModelFolder",
    "check_model_folder",
    "find_model",
    "prepare_adapter",
    "prepare_embedded",
    "prepare_gguf",
    "prepare_pickle",
]

"""The similarity core: exact ROUGE-L novelty, fast. See README.md here for the proof and the figures.

Needs numpy, numba and datasketch only.
"""

from .index import FilterResult
from .novelty import NoveltyIndex, PrefilterName, Recall
from .rouge import rouge_l, rouge_l_matrix
from .tokenize import Encoded, NoTokensWarning, encode
from .vocabulary import TokenizerName, Vocabulary

__all__ = [
    "Encoded",
    "FilterResult",
    "NoTokensWarning",
    "NoveltyIndex",
    "PrefilterName",
    "Recall",
    "TokenizerName",
    "Vocabulary",
    "encode",
    "rouge_l",
    "rouge_l_matrix",
]

"""The similarity core: fast, exact ROUGE-L novelty filtering. README.md in this folder has the proof and the costs.

Depends only on numpy, numba and datasketch.
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

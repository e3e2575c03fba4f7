"""Texts as byte codes, which data and networks share."""

import unicodedata
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from genzoo.core.errors import GenzooError

TEXT_LENGTH = 48
"""Bytes of a caption that are read; the rest is cut off."""

BYTE_CODES = 257
"""Codes of a caption's places: 0 for "no byte here", then 1 + byte."""


def byte_codes(texts: Sequence[str], length: int = TEXT_LENGTH) -> Tensor:
    """Texts as long `[n, length]`: 1 + each byte of their UTF-8, then zeros. Texts that are too long are cut.

    Upper case and the amount of blanks make no difference. What is cut off are whole characters.

    >>> byte_codes(["A  b"], 5)
    tensor([[98, 33, 99,  0,  0]])

    Raises `GenzooError` for anything but a list of texts.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise GenzooError('texts must be a list of strings, such as ["a sneaker"]')
    codes = np.zeros((len(texts), length), np.int64)
    for row, text in zip(codes, texts, strict=True):
        plain = " ".join(unicodedata.normalize("NFKC", text).lower().split())
        cut = plain.encode("utf-8", "replace")[:length].decode("utf-8", "ignore").encode()
        row[: len(cut)] = np.frombuffer(cut, np.uint8) + np.int64(1)
    return torch.from_numpy(codes)

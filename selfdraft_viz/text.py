"""Token ids to text, piece by piece. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PLACEHOLDER = "�"
"""Stands for a token that is part of a character, until the character is whole."""

_CONTEXT = 6  # tokens decoded before a piece, so that word boundaries come out as in running text


class Pieces:
    """What each token adds to the text.

    Byte-level tokens can split a character; such a piece is `PLACEHOLDER` until the token that completes the character,
    whose piece is the whole of it. Without a tokenizer a piece is the token id in angle brackets.
    """

    def __init__(self, tokenizer: Any | None) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[tuple[int, ...], str] = {}

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a run of tokens, special tokens written out."""
        if self._tokenizer is None:
            return "".join(f"⟨{token_id}⟩" for token_id in token_ids)
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def piece(self, before: Sequence[int], token_id: int) -> str:
        """What `token_id` adds after the tokens `before`."""
        key = (*before[-_CONTEXT:], token_id)
        if key not in self._cache:
            if len(self._cache) > 50_000:
                self._cache.clear()
            self._cache[key] = self._piece(key[:-1], token_id)
        return self._cache[key]

    def _piece(self, before: Sequence[int], token_id: int) -> str:
        if self._tokenizer is None:
            return f"⟨{token_id}⟩"
        earlier = self.decode(before).rstrip(PLACEHOLDER)  # what it ends with is a character not yet whole
        whole = self.decode([*before, token_id])
        if whole.endswith(PLACEHOLDER):
            return PLACEHOLDER
        return whole[len(earlier) :] if whole.startswith(earlier) else self.decode([token_id])

"""Token ids to text, piece by piece. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PLACEHOLDER = "�"
"""Stands for a token that is part of a character, until the character is whole."""

CONTEXT = 9
"""How many tokens before a piece `Pieces.piece` looks at."""

_WINDOW = 6  # of these are decoded: enough for spaces to come out as in running text, and for a split character


class Pieces:
    """What each token adds to the text.

    Byte-level tokens can split a character; such a piece is `PLACEHOLDER` until the token that completes the character,
    whose piece is the whole of it and whatever came with its parts. So the pieces together, less the placeholders, are
    the text. Without a tokenizer a piece is the token id in angle brackets.
    """

    def __init__(self, tokenizer: Any | None) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[tuple[int, ...], str] = {}

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a run of tokens, special tokens written out."""
        if self._tokenizer is None:
            return "".join(f"⟨{token_id}⟩" for token_id in token_ids)
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def continuation(self, before: Sequence[int], token_ids: Sequence[int]) -> str:
        """The text that `token_ids` add after the tokens `before`. Unlike `decode`, it keeps a space that it begins
        with where the tokenizer drops one at the start of a text."""
        context = self._window(before)
        return self._added(context, [*context, *token_ids], token_ids)

    def piece(self, before: Sequence[int], token_id: int) -> str:
        """What `token_id` adds after the tokens `before`."""
        key = (*before[-CONTEXT:], token_id)
        if key not in self._cache:
            if len(self._cache) > 50_000:
                self._cache.clear()
            context = self._window(key[:-1])
            together = [*context, token_id]
            unfinished = self._tokenizer is not None and self.decode(together).endswith(PLACEHOLDER)
            self._cache[key] = PLACEHOLDER if unfinished else self._added(context, together, [token_id])
        return self._cache[key]

    def _window(self, before: Sequence[int]) -> list[int]:
        """The last tokens of `before`, not cut inside a character that is spelled out in single-byte tokens: where a
        tokenizer falls back on those, one stray byte would spoil all that follow it."""
        start = max(0, len(before) - _WINDOW)
        while start > 0 and start > len(before) - CONTEXT and self._continues_a_character(before[start]):
            start -= 1
        return list(before[start:])

    def _continues_a_character(self, token_id: int) -> bool:
        if self._tokenizer is None:
            return False
        word = self._tokenizer.convert_ids_to_tokens(token_id)
        return isinstance(word, str) and len(word) == 6 and "<0x80>" <= word <= "<0xBF>"

    def _added(self, context: list[int], together: list[int], token_ids: Sequence[int]) -> str:
        """The text of `together` less that of the tokens before `token_ids` whose characters were whole."""
        whole, earlier = self.decode(together), self.decode(context)
        while earlier.endswith(PLACEHOLDER):
            context = context[:-1]
            earlier = self.decode(context)
        return whole[len(earlier) :] if whole.startswith(earlier) else self.decode(token_ids)

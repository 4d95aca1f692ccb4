"""Token ids to text, piece by piece: nothing is lost, nothing is shown by halves."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import PreTrainedTokenizerFast

import selfdraft_viz as sv
from selfdraft_viz.text import PLACEHOLDER, Pieces

hard_texts = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *("a", " b", ".", ",", "\n", "\n\n", "\t", "\r\n", "  ", "don't", " , ", "<|endoftext|>"),
                *("\U0001f469\u200d\U0001f469\u200d\U0001f467", "\U0001f3f3\ufe0f\u200d\U0001f308", "🧑🏽", "🇫🇷", "🚀"),
                *("日本語", "한국", "e\u0301", "नि", "\u0301", "שלום", "مرحبا", "\u200f", "\u00a0", "\u3000"),
            ]
        ),
        st.characters(exclude_categories=["Cs"], exclude_characters=PLACEHOLDER),
    ),
    max_size=25,
).map("".join)


def encode(model: sv.Model, text: str) -> list[int]:
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


def joined(pieces: Pieces, token_ids: list[int]) -> str:
    return "".join(pieces.piece(token_ids[:index], token_id) for index, token_id in enumerate(token_ids))


@given(text=hard_texts)
@example("🚀🏳️🧑🏽")
def test_the_pieces_of_a_text_are_the_text(embedded: sv.Model, text: str) -> None:
    """Breaks when a character that several tokens share is lost, doubled, or shown by halves."""
    token_ids = encode(embedded, text)
    pieces = Pieces(embedded.tokenizer)
    assert joined(pieces, token_ids).replace(PLACEHOLDER, "") == pieces.decode(token_ids) == text


@given(token_ids=st.lists(st.integers(0, 8191), max_size=25))
def test_the_pieces_of_any_tokens_are_their_text(embedded: sv.Model, token_ids: list[int]) -> None:
    """Breaks when tokens that are no text together (a model may well say them) swallow the characters beside them."""
    pieces = Pieces(embedded.tokenizer)
    text = pieces.decode(token_ids)
    assert joined(pieces, token_ids).replace(PLACEHOLDER, "") == text.replace(PLACEHOLDER, "")


@given(text=hard_texts, start=st.integers(0, 30))
def test_a_piece_needs_only_the_tokens_just_before_it(embedded: sv.Model, text: str, start: int) -> None:
    """Breaks when a round's drafts, of which only the last tokens before them are looked at, get other pieces than the
    text."""
    token_ids = encode(embedded, text)
    pieces = Pieces(embedded.tokenizer)
    for index, token_id in enumerate(token_ids):
        whole = pieces.piece(token_ids[:index], token_id)
        assert pieces.piece(token_ids[max(0, index - 8) : index], token_id) == whole
        assert Pieces(embedded.tokenizer).piece(token_ids[:index], token_id) == whole


def test_a_character_appears_with_the_token_that_completes_it(embedded: sv.Model) -> None:
    """Breaks when half a character is shown, or the placeholder stays for good."""
    token_ids = encode(embedded, "🚀")
    pieces = Pieces(embedded.tokenizer)
    assert len(token_ids) > 1
    shown = [pieces.piece(token_ids[:index], token_id) for index, token_id in enumerate(token_ids)]
    assert shown == [PLACEHOLDER] * (len(token_ids) - 1) + ["🚀"]


@pytest.fixture(scope="module")
def sentencepiece_like() -> PreTrainedTokenizerFast:
    """As Llama 2 and Gemma have it: spaces as ▁, unknown characters as bytes, and no space at the start of a decoded
    text."""
    words = [
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *"abcdefg",
        "▁a",
        "▁b",
        "ab",
        "▁ab",
        "cd",
        "▁cd",
    ]
    merges = [("▁", "a"), ("▁", "b"), ("a", "b"), ("▁a", "b"), ("c", "d"), ("▁", "cd")]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(tokenizer_models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@given(text=hard_texts | st.text("abcd 🚀é", max_size=20))
@example("ab cd  🚀🚀 a")
def test_pieces_of_tokenizers_with_word_marks_are_the_text_too(
    sentencepiece_like: PreTrainedTokenizerFast, text: str
) -> None:
    """Breaks when a piece loses the space before its word, which such tokenizers drop at the start of what they
    decode."""
    pieces = Pieces(sentencepiece_like)
    token_ids = sentencepiece_like(text)["input_ids"]
    assert joined(pieces, token_ids).replace(PLACEHOLDER, "") == pieces.decode(token_ids)
    if "▁" not in text:
        assert pieces.decode(token_ids) == text


@pytest.fixture(scope="module")
def splitting() -> PreTrainedTokenizerFast:
    """Byte-level, with a token that is a space and the first two bytes of a dash or quotation mark, as GPT-2 has it."""
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġâ", "ĠâĢ", "ab"]
    merges = [("Ġ", "â"), ("Ġâ", "Ģ"), ("a", "b")]
    tokenizer = Tokenizer(tokenizer_models.BPE({word: index for index, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@given(text=hard_texts | st.text("ab –“”", max_size=20))
@example("ab – “ab” –")
def test_what_comes_with_a_part_of_a_character_is_shown_with_the_whole_of_it(
    splitting: PreTrainedTokenizerFast, text: str
) -> None:
    """Breaks when the space before a dash vanishes with the placeholder that stood for both."""
    pieces = Pieces(splitting)
    token_ids = splitting(text)["input_ids"]
    assert joined(pieces, token_ids).replace(PLACEHOLDER, "") == pieces.decode(token_ids) == text


@given(text=hard_texts, where=st.integers(0, 40))
def test_a_continuation_is_what_its_tokens_add_to_the_text(
    sentencepiece_like: PreTrainedTokenizerFast, embedded: sv.Model, text: str, where: int
) -> None:
    """Breaks when the text of the new tokens of a decode does not go on from its prompt."""
    for tokenizer in (sentencepiece_like, embedded.tokenizer):
        pieces = Pieces(tokenizer)
        token_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        before, after = token_ids[:where], token_ids[where:]
        if not pieces.decode(before).endswith(PLACEHOLDER):
            assert pieces.decode(before) + pieces.continuation(before, after) == pieces.decode(token_ids)


def test_without_a_tokenizer_pieces_are_token_ids() -> None:
    """Breaks when a model of bare token ids cannot be shown."""
    pieces = Pieces(None)
    assert pieces.continuation([1], [3, 14]) == pieces.decode([3, 14]) == joined(pieces, [3, 14]) == "⟨3⟩⟨14⟩"


@pytest.mark.parametrize("text", ["", "a"])
def test_short_texts_have_pieces_too(embedded: sv.Model, text: str) -> None:
    """Breaks at the beginning of a text, where there is no context."""
    assert joined(Pieces(embedded.tokenizer), encode(embedded, text)) == text

"""Token text made safe to show: what cannot be seen becomes visible, and nothing is read as markup."""

from __future__ import annotations

import html
import unicodedata

_JOINERS = "\u200c\u200d"  # emoji and Indic scripts need them to come out whole


def visible(text: str) -> str:
    """`text` with a sign for every character that shows nothing, or changes what is around it.

    A newline becomes `↵` and stays a newline, a tab `⇥` and stays a tab; other control characters become control
    pictures (`␛`), and bidirectional overrides, zero-width characters and lone surrogates a code point (`‹U+202E›`).
    """
    if text.isprintable():
        return text
    return "".join(map(_visible_character, text))


def _visible_character(character: str) -> str:
    if character == "\n":
        return "↵\n"
    if character == "\t":
        return "⇥\t"
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if character not in _JOINERS and unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return f"‹U+{code:04X}›"
    return character


def hover_text(text: str) -> str:
    """`text` for plotly, whose labels read a little HTML and LaTeX: shown as it is, on one line, never interpreted."""
    one_line = visible(text).replace("\n", "").replace("\t", "")
    return html.escape(one_line, quote=False).replace("$", "&#36;")

"""Token text is shown, never interpreted, and what cannot be seen becomes visible."""

from __future__ import annotations

import html
import unicodedata

import plotly.graph_objects as go
from hypothesis import given
from hypothesis import strategies as st

from selfdraft_viz.plots.text import hover_text, visible


@given(st.text(st.characters()))
def test_what_is_visible_has_no_character_that_hides_or_reorders(text: str) -> None:
    """Breaks when a control character, a bidirectional override or a lone surrogate reaches a page."""
    for character in visible(text):
        if character not in "\n\t\u200c\u200d":
            assert unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    visible(text).encode("utf-8")


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_newlines_tabs_and_controls_get_a_sign_of_their_own() -> None:
    assert visible("a\nb\tc\x1b\x7f\u202e\ud800") == "a↵\nb⇥\tc␛␡‹U+202E›‹U+D800›"


@given(st.text(alphabet="<>&'\"$\\{}x=/ "))
def test_hover_text_leaves_no_markup_and_no_formula(text: str) -> None:
    """Breaks when plotly would read a token as a tag, as a formula between dollar signs, or as a template."""
    shown = hover_text(text)
    assert not set("<>$") & set(shown)
    assert html.unescape(shown) == text


def test_a_token_of_markup_survives_a_figure_as_text() -> None:
    figure = go.Figure(go.Scatter(x=[0], y=[0], text=[hover_text("<img src=x onerror=alert(1)>")]))
    assert "<img" not in figure.to_json()

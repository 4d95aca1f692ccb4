"""One colour scale, light to dark, that text stays readable on."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from selfdraft_viz.plots.colours import (
    KIND_SYMBOLS,
    OUTCOME_SYMBOLS,
    _luminance,
    contrast,
    depth_colour,
    depth_palette,
)


@given(num_layers=st.integers(2, 96))
def test_deeper_is_darker_in_grey_too(num_layers: int) -> None:
    """Breaks when two depths could only be told apart by hue."""
    greys = [_luminance(depth_colour(depth, num_layers)) for depth in range(1, num_layers + 1)]
    assert all(shallow > deep for shallow, deep in itertools.pairwise(greys))


@given(num_layers=st.integers(2, 96))
def test_text_on_every_depth_is_readable(num_layers: int) -> None:
    """WCAG AA: 4.5 to 1."""
    palette = depth_palette(range(1, num_layers + 1), num_layers)
    assert all(contrast(background, ink) >= 4.5 for background, ink in palette.values())


def test_kinds_and_outcomes_differ_in_shape() -> None:
    marked = [KIND_SYMBOLS[kind] for kind in ("first", "accepted", "correction", "bonus")]
    assert len(set(marked)) == 4
    assert len(set(OUTCOME_SYMBOLS.values())) == 3

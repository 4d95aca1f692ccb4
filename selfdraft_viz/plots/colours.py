"""One colour language for every view.

Exit depth runs along a part of viridis: bright = shallow, dark = deep. It is told apart in every common kind of colour
blindness and in grey. What a token is (its kind) never rests on colour: it has a shape or a line of its own as well.
"""

from __future__ import annotations

from collections.abc import Iterable

# Viridis (Smith & van der Walt, 2015), read from its light end; the palest and darkest tips are left out, so that marks
# stand out from white paper and from a dark theme alike.
_STOPS = ("#dde318", "#a2da37", "#6ccd5a", "#3fbc73", "#21a685", "#1f9089", "#287a8e", "#31648e", "#3d4c8a", "#463480")

ACCEPTED = "#2f7fc1"
REJECTED = "#d9601a"
DROPPED = "#b8860b"
NEUTRAL = "#808080"
INK = "#7d7d7d"
"""Text in a plot: readable on white and on black. Where the theme is known, a style sheet puts its own colour in."""

KIND_SYMBOLS = {"first": "square", "accepted": "circle", "correction": "x", "bonus": "triangle-up", "plain": "circle"}
"""plotly marker symbols by kind of token."""
OUTCOME_SYMBOLS = {"accepted": "circle", "rejected": "x", "dropped": "circle-open"}
"""plotly marker symbols by what became of a draft."""


def depth_colour(depth: float, num_layers: int) -> str:
    """The colour of an exit after `depth` of `num_layers` layers, as #rrggbb."""
    share = (depth - 1) / max(1, num_layers - 1)
    place = min(1.0, max(0.0, share)) * (len(_STOPS) - 1)
    below = min(int(place), len(_STOPS) - 2)
    return _mix(_STOPS[below], _STOPS[below + 1], place - below)


def depth_scale() -> list[tuple[float, str]]:
    """The same colours as a plotly colour scale; use it with cmin=1 and cmax=L."""
    return [(index / (len(_STOPS) - 1), stop) for index, stop in enumerate(_STOPS)]


def depth_palette(depths: Iterable[int], num_layers: int) -> dict[int, tuple[str, str]]:
    """`{depth: (background, ink)}` for text of that exit depth."""
    colours = {depth: depth_colour(depth, num_layers) for depth in depths}
    return {depth: (colour, ink_on(colour)) for depth, colour in colours.items()}


def ink_on(background: str) -> str:
    """Black or white, whichever is easier to read on `background` (WCAG 2 contrast)."""
    luminance = _luminance(background)
    return "#000000" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "#ffffff"


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two colours, 1..21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _channels(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _channels(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _mix(one: str, other: str, share: float) -> str:
    mixed = [round(a + (b - a) * share) for a, b in zip(_channels(one), _channels(other), strict=True)]
    return "#" + "".join(f"{channel:02x}" for channel in mixed)

"""The generated text, each token coloured by exit depth and marked by its kind; only what changed is sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import anywidget

from selfdraft_viz.glossary import GLOSSARY
from selfdraft_viz.plots.colours import depth_palette
from selfdraft_viz.plots.text import visible
from selfdraft_viz.widgets.assets import STATIC
from selfdraft_viz.widgets.live import LiveTables, PendingDraft

_KEY = ("exit depth", "first", "correction", "bonus", "draft", "rejected", "dropped")


class TextView(anywidget.AnyWidget):
    """Shows a `LiveTables`. A front end that appears later, or again, asks for everything and gets it.

    Args:
        selected: called with the position of a token that was chosen.
        described: called with a position, returns what to say on hover.
    """

    _esm = (STATIC / "text.js").read_text(encoding="utf-8")
    _css = (STATIC / "text.css").read_text(encoding="utf-8")

    def __init__(
        self,
        exit_layers: Sequence[int],
        num_layers: int,
        selected: Callable[[int], None] | None = None,
        described: Callable[[int], str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._lock = threading.RLock()  # a front end may ask while a run draws
        self._selected_position: int | None = None
        self._selected, self._described = selected, described
        self.on_msg(self._asked)
        self.set_model(exit_layers, num_layers)

    def set_model(self, exit_layers: Sequence[int], num_layers: int) -> None:
        self._num_layers = num_layers
        self._layers = sorted({*exit_layers, num_layers})
        self.clear()

    def clear(self, prompt: str = "", hint: str = "Press Run: the text appears here, coloured by exit depth.") -> None:
        """Show a prompt and no tokens."""
        with self._lock:
            self._prompt, self._hint = prompt, hint
            self._sent = 0
            self._tokens: list[list[Any]] = []
            self._drafts: list[list[Any]] = []
            self._selected_position = None
            self.send(self._reset())

    def select(self, position: int | None) -> None:
        """Mark the token at a position."""
        self._selected_position = position
        self.send({"type": "selected", "position": position})

    def update(self, tables: LiveTables) -> None:
        """Send the tokens that are new, and the drafts of the moment."""
        with self._lock:
            tokens = tables.tokens
            for index in range(len(self._tokens), tables.new_tokens):
                self._tokens.append(
                    [
                        visible(tokens["text"][index]),
                        tokens["exit_depth"][index],
                        tokens["kind"][index],
                        _token_label(tokens, index),
                        tokens["position"][index],
                    ]
                )
            self._drafts = [_draft_row(draft) for draft in (tables.pending or tables.thrown_away)]
            self.send(
                {"type": "patch", "from": self._sent, "tokens": self._tokens[self._sent :], "drafts": self._drafts}
            )
            self._sent = len(self._tokens)

    def _reset(self) -> dict[str, Any]:
        palette = depth_palette(range(1, self._num_layers + 1), self._num_layers)
        return {
            "type": "reset",
            "palette": {str(depth): colours for depth, colours in palette.items()},
            "layers": self._layers,
            "num_layers": self._num_layers,
            "prompt": visible(self._prompt),
            "hint": self._hint,
            "words": {word: GLOSSARY[word] for word in _KEY},
        }

    def _asked(self, _: Any, content: Any, __: Any) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "ready":
            with self._lock:
                self.send({**self._reset(), "from": 0, "tokens": list(self._tokens), "drafts": list(self._drafts)})
                self.send({"type": "selected", "position": self._selected_position})
        elif kind == "select" and self._selected is not None:
            self._selected(int(content["position"]))
        elif kind == "describe" and self._described is not None:
            position = int(content["position"])
            self.send({"type": "label", "position": position, "label": self._described(position)})


def _token_label(tokens: dict[str, Any], index: int) -> str:
    confidence = tokens["confidence"][index]
    label = f"position {tokens['position'][index]}, {tokens['kind'][index]}, exit depth {tokens['exit_depth'][index]}"
    return label if confidence != confidence else f"{label}, confidence {confidence:.3f}"


def _draft_row(draft: PendingDraft) -> list[Any]:
    where = f"{draft.outcome} for position {draft.position}"
    label = f"{where}, exit depth {draft.exit_depth}, confidence {draft.confidence:.3f}"
    return [visible(draft.text), draft.exit_depth, draft.outcome, label]

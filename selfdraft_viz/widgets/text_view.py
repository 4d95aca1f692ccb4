"""The generated text, each token coloured by exit depth and marked by its kind; only what changed is sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget

from selfdraft_viz.plots.colours import depth_palette
from selfdraft_viz.plots.text import visible
from selfdraft_viz.widgets.live import LiveTables, PendingDraft

STATIC = Path(__file__).parent / "static"


class TextView(anywidget.AnyWidget):
    """Shows a `LiveTables`. A front end that appears later, or again, asks for everything and gets it."""

    _esm = (STATIC / "text.js").read_text(encoding="utf-8")
    _css = (STATIC / "text.css").read_text(encoding="utf-8")

    def __init__(self, exit_layers: Sequence[int], num_layers: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.on_msg(self._asked)
        self.set_model(exit_layers, num_layers)

    def set_model(self, exit_layers: Sequence[int], num_layers: int) -> None:
        self._num_layers = num_layers
        self._layers = sorted({*exit_layers, num_layers})
        self.clear()

    def clear(self, prompt: str = "", hint: str = "Press Run: the text appears here, coloured by exit depth.") -> None:
        """Show a prompt and no tokens."""
        self._prompt, self._hint = prompt, hint
        self._sent = 0
        self._tokens: list[list[Any]] = []
        self._drafts: list[list[Any]] = []
        self.send(self._reset())

    def update(self, tables: LiveTables) -> None:
        """Send the tokens that are new, and the drafts of the moment."""
        tokens = tables.tokens
        for index in range(len(self._tokens), tables.new_tokens):
            self._tokens.append(
                [
                    visible(tokens["text"][index]),
                    tokens["exit_depth"][index],
                    tokens["kind"][index],
                    _token_label(tokens, index),
                ]
            )
        self._drafts = [_draft_row(draft) for draft in (tables.pending or tables.thrown_away)]
        self.send({"type": "patch", "from": self._sent, "tokens": self._tokens[self._sent :], "drafts": self._drafts})
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
        }

    def _asked(self, _: Any, content: Any, __: Any) -> None:
        if isinstance(content, dict) and content.get("type") == "ready":
            self.send({**self._reset(), "from": 0, "tokens": list(self._tokens), "drafts": list(self._drafts)})


def _token_label(tokens: dict[str, Any], index: int) -> str:
    confidence = tokens["confidence"][index]
    label = f"position {tokens['position'][index]}, {tokens['kind'][index]}, exit depth {tokens['exit_depth'][index]}"
    return label if confidence != confidence else f"{label}, confidence {confidence:.3f}"


def _draft_row(draft: PendingDraft) -> list[Any]:
    where = f"{draft.outcome} for position {draft.position}"
    label = f"{where}, exit depth {draft.exit_depth}, confidence {draft.confidence:.3f}"
    return [visible(draft.text), draft.exit_depth, draft.outcome, label]

"""The text view sends what is new, and everything to a front end that comes later."""

from __future__ import annotations

from typing import Any

import pytest

import selfdraft_viz as sv
from selfdraft_viz.widgets.live import LiveTables
from selfdraft_viz.widgets.text_view import TextView


class Recorded(TextView):
    """A view whose messages are kept instead of sent."""

    def __init__(self, *args: Any) -> None:
        self.sent: list[dict[str, Any]] = []
        super().__init__(*args)

    def send(self, content: Any, buffers: Any = None) -> None:
        self.sent.append(content)


@pytest.fixture
def decoded(embedded: sv.Model) -> tuple[Recorded, LiveTables, list[Any]]:
    prompt = "<img src=x onerror=alert(1)>\n\x1b\u202e$x^2$"
    view = Recorded(embedded.exit_layers, embedded.num_layers)
    tables = LiveTables(embedded.recorder().pieces)
    view.clear(prompt)
    events = list(embedded.stream(prompt, embedded.preset.replace(threshold=0.3), max_new_tokens=30))
    return view, tables, events


def test_patches_put_together_are_the_text_and_name_each_token_once(decoded) -> None:
    view, tables, events = decoded
    for cut in range(0, len(events) + 40, 40):
        tables.read(events[:cut])
        view.update(tables)
    tokens: list[Any] = []
    for message in view.sent:
        if message["type"] == "patch":
            assert message["from"] == len(tokens)
            tokens += message["tokens"]
    assert [token[1] for token in tokens] == list(tables.tokens["exit_depth"])
    assert [token[2] for token in tokens] == tables.tokens["kind"]
    assert len(tokens) == tables.new_tokens


def test_a_front_end_that_comes_later_gets_everything(decoded) -> None:
    view, tables, events = decoded
    tables.read(events)
    view.update(tables)
    view._handle_custom_msg({"type": "ready"}, [])
    snapshot, selected = view.sent[-2:]
    assert snapshot["type"] == "reset"
    assert len(snapshot["tokens"]) == tables.new_tokens
    assert "<img src=x onerror=alert(1)>↵\n␛‹U+202E›$x^2$" in snapshot["prompt"]
    assert selected == {"type": "selected", "position": None}


def test_drafts_of_the_running_round_and_those_thrown_away_are_shown_beside_the_text(decoded) -> None:
    view, tables, events = decoded
    outcomes = set()
    for index in range(len(events)):
        tables.read(events[: index + 1])
        view.update(tables)
        outcomes |= {draft[2] for draft in view.sent[-1]["drafts"]}
    assert outcomes >= {"draft", "rejected"}


def test_the_front_end_never_reads_text_as_markup() -> None:
    """Breaks when somebody writes text into the page by another way than textContent."""
    for source in (TextView._esm, __import__("selfdraft_viz.widgets.readout", fromlist=["x"]).Readout._esm):
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert way not in str(source)

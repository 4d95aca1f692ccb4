"""A plot's patches hold the tails of what has changed, and put together are the figure."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from selfdraft_viz.widgets.plot_view import PlotView


class Page:
    """What the front end keeps: the same steps as in plot.js."""

    def __init__(self) -> None:
        self.columns: list[dict[str, Any]] = []
        self.values: list[dict[str, Any]] = []
        self.layout: dict[str, Any] = {}

    def receive(self, message: dict[str, Any], buffers: list[bytes]) -> None:
        if message["type"] == "figure":
            self.columns = [{} for _ in message["figure"]["data"]]
            self.values = [{} for _ in message["figure"]["data"]]
        for patch in message["traces"]:
            trace, path = patch["trace"], patch["path"]
            if "dtype" in patch:
                tail = np.frombuffer(buffers[patch["buffer"]], dtype=patch["dtype"])
                old = self.columns[trace].get(path, tail[:0])
                assert patch["start"] <= len(old)
                start = patch["start"]
                self.columns[trace][path] = np.concatenate([old[:start], tail]) if start else tail
            elif "values" in patch:
                old = self.columns[trace].get(path, [])
                assert patch["start"] <= len(old)
                self.columns[trace][path] = [*old[: patch["start"]], *patch["values"]]
            else:
                self.values[trace][path] = patch["value"]
        self.layout.update(message["layout"])


class Sent(PlotView):
    """A view whose messages go to a `Page`."""

    def __init__(self, figure: go.Figure) -> None:
        self.page = Page()
        self.bytes: list[int] = []
        super().__init__(figure)

    def send(self, content: Any, buffers: Any = None) -> None:
        self.bytes.append(sum(map(len, buffers or [])))
        if content["type"] in ("figure", "patch"):
            self.page.receive(content, buffers or [])


def view() -> Sent:
    return Sent(go.Figure([go.Scatter(name="a"), go.Scatter(name="b")], go.Layout(height=200)))


columns = hnp.arrays(
    st.sampled_from([np.dtype("float32"), np.dtype("int16")]), st.integers(0, 12), elements=st.integers(0, 3)
)


@given(updates=st.lists(st.tuples(columns, columns), max_size=8))
def test_patches_put_together_are_the_columns(updates: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Breaks when a column that shrinks, changes in the middle or changes its type is patched wrongly."""
    shown = view()
    for x, y in updates:
        shown.update([{"x": x, "marker.color": y}, {"x": y}])
        page = shown.page.columns
        for expected, got in ((x, page[0]["x"]), (y, page[0]["marker.color"]), (y, page[1]["x"])):
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)


def test_a_column_that_grows_is_sent_by_its_tail_and_one_that_stays_not_at_all() -> None:
    shown = view()
    x = np.arange(500, dtype="float32")
    x[7] = np.nan
    shown.update([{"x": x[:499]}, {"x": x}])
    shown.update([{"x": x}, {"x": x.copy()}])
    assert shown.bytes[-1] == 4
    count = len(shown.bytes)
    shown.update([{"x": x}, {"x": x}], {})
    assert len(shown.bytes) == count, "nothing changed, nothing is sent"


@given(updates=st.lists(st.lists(st.tuples(st.integers(0, 2), st.text("ab", max_size=2)), max_size=6), max_size=8))
def test_lists_are_put_together_too(updates: list[list[tuple[int, str]]]) -> None:
    shown = view()
    for index, rows in enumerate(updates):
        shown.update([{"customdata": rows}])
        if index == 2:  # a front end appears anew
            shown.page = Page()
            shown._handle_custom_msg({"type": "ready"}, [])
        assert shown.page.columns[0]["customdata"] == rows


def test_a_front_end_that_comes_later_gets_everything() -> None:
    shown = view()
    x = np.arange(5, dtype="int32")
    shown.update([{"x": x, "customdata": [["a"]]}], {"xaxis.range": [0, 9]})
    shown.page = Page()
    shown._handle_custom_msg({"type": "ready"}, [])
    np.testing.assert_array_equal(shown.page.columns[0]["x"], x)
    assert shown.page.columns[0]["customdata"] == [["a"]]
    assert shown.page.layout == {"xaxis.range": [0, 9]}


def test_the_snapshot_is_a_valid_figure_of_what_is_shown() -> None:
    shown = view()
    x = np.arange(5, dtype="int32")
    shown.update([{"x": x, "marker.color": x}], {"xaxis.range": [0, 9]})
    figure = shown.snapshot()
    assert list(figure.data[0].marker.color) == [0, 1, 2, 3, 4]
    assert figure.layout.xaxis.range == (0, 9)


def test_clicks_arrive_with_what_was_clicked() -> None:
    clicks: list[Any] = []
    shown = PlotView(go.Figure(go.Scatter()), lambda *click: clicks.append(click))
    shown._handle_custom_msg({"type": "click", "x": 3, "y": 0.5, "trace": 0}, [])
    shown._handle_custom_msg("nonsense", [])
    assert clicks == [(3, 0.5, 0)]


def test_an_array_that_changes_in_place_is_sent_again() -> None:
    """As the staircase's cells do: what was sent is compared with, not what the array has become."""
    sent, cells = view(), np.zeros(6, dtype="int16")
    sent.update([{"y": cells}, {}])
    cells[2:4] = 5
    sent.update([{"y": cells}, {}])
    assert list(sent.page.columns[0]["y"]) == [0, 0, 5, 5, 0, 0]

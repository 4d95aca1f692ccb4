"""What settings would do to recorded texts: predicted speed over pairs of settings, the trade-off between them, and
what would change token by token. Tables come from `selfdraft_viz.lab.whatif`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from selfdraft_viz.plots.colours import ACCEPTED, INK, NEUTRAL, REJECTED
from selfdraft_viz.plots.style import axis, margins, plain_layout
from selfdraft_viz.plots.tables import Table, numbers, words
from selfdraft_viz.plots.text import hover_text

SPEED_SCALE = [(0.0, "#b34a10"), (0.25, "#e8935a"), (0.5, "#ece7e1"), (0.75, "#6ea8d6"), (1.0, "#1d5c94")]
"""Of a speedup: orange below 1, blue above it; told apart in every common kind of colour blindness."""
_PANELS = {
    "threshold": "threshold",
    "alpha": "annealing strength α",
    "max_width": "max width, tokens",
    "exit_layers": "exit layers",
}


def speed_colours(values: np.ndarray) -> dict[str, Any]:
    """`colorscale`, `cmin` and `cmax` with the middle of the scale at a speedup of 1."""
    reach = max(0.05, float(np.nanmax(np.abs(np.asarray(values, dtype=float) - 1)))) if len(values) else 0.5
    return {"colorscale": SPEED_SCALE, "cmin": 1 - reach, "cmax": 1 + reach}


def alpha_threshold_heatmap(
    grid: Table, measured: Table | None = None, title: str = "Predicted speedup over annealing strength and threshold"
) -> go.Figure:
    """Predicted speedup over (alpha, threshold), with measured points on it in the same colours.

    Args:
        grid: columns alpha, threshold, predicted: every pair once.
        measured: columns alpha, threshold, measured; None = none.
        title: above the figure.
    """
    table = pd.DataFrame({name: numbers(grid, name) for name in ("alpha", "threshold", "predicted")})
    wide = table.pivot(index="threshold", columns="alpha", values="predicted")
    points = None if measured is None else {n: numbers(measured, n) for n in ("alpha", "threshold", "measured")}
    seen = [wide.to_numpy().ravel(), *([] if points is None else [points["measured"]])]
    scale = speed_colours(np.concatenate(seen))
    figure = go.Figure(
        go.Heatmap(
            x=wide.columns.to_numpy(),
            y=wide.index.to_numpy(),
            z=wide.to_numpy(),
            colorscale=scale["colorscale"],
            zmin=scale["cmin"],
            zmax=scale["cmax"],
            colorbar={"title": {"text": "speedup", "side": "right"}, "thickness": 14, "outlinewidth": 0},
            hovertemplate="α = %{x:.2f}, threshold %{y:.2f}<br>predicted %{z:.2f}x<extra></extra>",
        ),
        layout=plain_layout(
            title={"text": title, "font": {"size": 15}, "x": 0.01},
            xaxis=axis("annealing strength α (T of layer l: 1 + α (1 − l / L))", showgrid=False),
            yaxis=axis("threshold (confidence)", showgrid=False),
            height=440,
            margin=margins(l=62, r=84, t=70, b=52),
            legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        ),
    )
    best = table.iloc[int(table["predicted"].argmax())]
    figure.add_scatter(
        x=[best["alpha"]],
        y=[best["threshold"]],
        mode="markers",
        marker={"symbol": "star", "size": 15, "color": "#ffffff", "line": {"width": 1.5, "color": "#222222"}},
        name=f"best predicted, {best['predicted']:.2f}x",
        hovertemplate="best predicted: %{x:.2f}, %{y:.2f}<extra></extra>",
    )
    if points is not None:
        figure.add_scatter(
            x=points["alpha"],
            y=points["threshold"],
            mode="markers",
            marker={
                "symbol": "circle",
                "size": 17,
                "color": points["measured"],
                **scale,
                "line": {"width": 2, "color": "#222222"},
            },
            customdata=points["measured"],
            name="measured",
            hovertemplate="α = %{x:.2f}, threshold %{y:.2f}<br>measured %{customdata:.2f}x<extra></extra>",
        )
    return figure


def pareto(table: Table, front: Sequence[bool], base: Table | None = None) -> go.Figure:
    """Acceptance rate against tokens per round: each setting a dot in the colour of its predicted speedup, and the
    settings that no other beats in both.

    Args:
        table: columns acceptance_rate, tokens_per_round, predicted.
        front: (rows,) whether a row is on the front; `selfdraft_viz.lab.whatif.pareto_front`.
        base: the same columns for one setting to be marked; None = none.
    """
    x, y, speed = (numbers(table, name) for name in ("acceptance_rate", "tokens_per_round", "predicted"))
    on_front = np.asarray(front, dtype=bool)
    order = np.argsort(x[on_front])
    scale = speed_colours(speed)
    hover = "%{x:.0%} accepted, %{y:.2f} tokens a round<br>predicted %{customdata:.2f}x<extra></extra>"
    figure = go.Figure(
        [
            go.Scattergl(
                x=x,
                y=y,
                customdata=speed,
                mode="markers",
                marker={
                    "size": 5,
                    "color": speed,
                    **scale,
                    "opacity": 0.75,
                    "colorbar": {"title": {"text": "predicted speedup", "side": "right"}, "thickness": 14},
                },
                name="a setting",
                hovertemplate=hover,
            ),
            go.Scatter(
                x=x[on_front][order],
                y=y[on_front][order],
                customdata=speed[on_front][order],
                mode="lines+markers",
                line={"color": INK, "width": 1.5, "shape": "vh"},
                marker={"size": 8, "color": speed[on_front][order], **scale, "line": {"width": 1, "color": "#222222"}},
                name="best trade-offs",
                hovertemplate=hover,
            ),
        ],
        layout=plain_layout(
            title={
                "text": "Bold or safe: acceptance against tokens per round",
                "font": {"size": 15},
                "x": 0.01,
            },
            xaxis=axis("acceptance rate (accepted / drafted)", tickformat=".0%"),
            yaxis=axis("tokens per round", rangemode="tozero"),
            height=420,
            margin={"l": 62, "r": 16, "t": 70, "b": 52},
            legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        ),
    )
    if base is not None:
        figure.add_scatter(
            x=numbers(base, "acceptance_rate"),
            y=numbers(base, "tokens_per_round"),
            customdata=numbers(base, "predicted"),
            mode="markers",
            marker={"symbol": "star", "size": 15, "color": "#ffffff", "line": {"width": 1.5, "color": "#222222"}},
            name="now",
            hovertemplate=hover,
        )
    return figure


def sensitivity_panels(table: Table, base_speedup: float) -> go.Figure:
    """Predicted speedup as each setting moves by itself; the dashed line is where all stand now.

    Args:
        table: of `selfdraft_viz.lab.whatif.sensitivity`.
        base_speedup: predicted for the settings that they are moved from.
    """
    frame = pd.DataFrame({"setting": words(table, "setting"), "label": words(table, "label")})
    for name in ("value", "predicted", "is_base"):
        frame[name] = numbers(table, name)
    figure = make_subplots(rows=1, cols=len(_PANELS), shared_yaxes=True, horizontal_spacing=0.03)
    for column, (setting, title) in enumerate(_PANELS.items(), start=1):
        rows = frame[frame["setting"] == setting]
        named = setting == "exit_layers"
        figure.add_scatter(
            x=rows["label"] if named else rows["value"],
            y=rows["predicted"],
            mode="markers" if named else "lines+markers",
            line={"color": ACCEPTED, "width": 2},
            marker={"size": 9 if named else 5, "color": ACCEPTED},
            customdata=rows["label"],
            hovertemplate=f"{title}: %{{customdata}}<br>predicted %{{y:.2f}}x<extra></extra>",
            showlegend=False,
            row=1,
            col=column,
        )
        figure.add_hline(y=base_speedup, line={"color": INK, "width": 1, "dash": "dash"}, row=1, col=column)
        figure.update_xaxes(axis(title, nticks=6, **({"tickangle": -40} if named else {})), row=1, col=column)
        figure.update_yaxes(axis("predicted speedup" if column == 1 else None), row=1, col=column)
    return figure.update_layout(
        plain_layout(
            title={"text": "Each setting moved by itself (dashed: as they are now)", "font": {"size": 15}, "x": 0.01},
            height=330,
            margin={"l": 62, "r": 16, "t": 48, "b": 80},
        )
    )


def token_changes_plot(changes: Table, texts: Sequence[str] | None = None) -> go.Figure:
    """Exit depth of every token under two settings: a line where it would change, up or down.

    Args:
        changes: of `selfdraft_viz.lab.whatif.token_changes`.
        texts: (rows,) each token's text; None = its id.
    """
    figure = go.Figure(
        layout=plain_layout(
            title={"text": "What would change, token by token", "font": {"size": 15}, "x": 0.01},
            xaxis=axis("position (token)"),
            yaxis=axis("exit depth, layers", rangemode="tozero"),
            height=340,
            margin=margins(l=62, r=16, t=70, b=52),
            legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        )
    )
    data = iter(token_changes_data(changes, texts))
    for kind, (_, colour, symbol) in _CHANGES.items():
        if kind:
            line = {"color": colour, "width": 1.5}
            figure.add_scatter(**next(data), mode="lines", line=line, hoverinfo="skip", showlegend=False)
        marker = {"symbol": symbol, "size": 9 if kind else 5, "color": colour}
        hover = "position %{x}: %{text}<extra></extra>"
        figure.add_scatter(**next(data), mode="markers", marker=marker, hovertemplate=hover)
    return figure


_CHANGES = {
    "": ("as before", NEUTRAL, "circle"),
    "earlier": ("earlier: fewer layers", ACCEPTED, "triangle-down"),
    "later": ("later: more layers", REJECTED, "triangle-up"),
}


def token_changes_data(changes: Table, texts: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """What the traces of `token_changes_plot` show, in their order; arguments as for it."""
    position, before, after = (numbers(changes, name) for name in ("position", "exit_depth_before", "exit_depth_after"))
    change = words(changes, "change")
    shown = [f"⟨{int(token)}⟩" for token in numbers(changes, "token_id")] if texts is None else map(hover_text, texts)
    labels = np.array(
        [
            f"{text}<br>{a} after {int(b)} layers → {c} after {int(d)}"
            for text, a, b, c, d in zip(
                shown, words(changes, "kind_before"), before, words(changes, "kind_after"), after, strict=True
            )
        ],
        dtype=object,
    )
    data: list[dict[str, Any]] = []
    for kind, (name, _, _) in _CHANGES.items():
        some = change == kind
        if kind:
            gaps = np.full(some.sum(), np.nan)
            data.append(
                {
                    "x": np.stack([position[some], position[some], gaps], axis=1).ravel(),
                    "y": np.stack([before[some], after[some], gaps], axis=1).ravel(),
                }
            )
        data.append(
            {
                "x": position[some],
                "y": after[some],
                "text": labels[some].tolist(),
                "name": f"{name} ({int(some.sum())})",
            }
        )
    return data

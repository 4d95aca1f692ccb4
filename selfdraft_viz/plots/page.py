"""A trace as one HTML file: its text, figures and words. It opens without Python and without a network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
from plotly.io import to_html

from selfdraft_viz.glossary import GLOSSARY
from selfdraft_viz.plots.colours import depth_palette
from selfdraft_viz.plots.dashboard import dashboard
from selfdraft_viz.plots.exits import exits
from selfdraft_viz.plots.pinned import PinnedCurves
from selfdraft_viz.plots.staircase import staircase_player
from selfdraft_viz.plots.text import visible

if TYPE_CHECKING:
    from selfdraft_viz.trace import Trace

_CONFIG = {"displaylogo": False, "responsive": True, "toImageButtonOptions": {"format": "svg", "filename": "selfdraft"}}
_FIGURES = (
    ("new tokens", "new_tokens", "{:d}"),
    ("acceptance rate", "acceptance_rate", "{:.0%}"),
    ("tokens per round", "tokens_per_round", "{:.2f}"),
    ("mean exit depth", "mean_exit_depth", "{:.1f}"),
    ("layer passes per token", "layer_passes_per_token", "{:.1f}"),
    ("tokens per second", "tokens_per_second", "{:.1f}"),
)
_STYLE = """
body { font: 16px/1.5 Inter, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif; color: #222; background: #fff; max-width: 1180px; margin: 24px auto; padding: 0 20px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 28px 0 6px; }
.made { color: #555; font-size: 14px; margin: 0 0 14px; }
.figures { display: flex; flex-wrap: wrap; gap: 8px; margin: 12px 0; padding: 0; }
.figures div { border: 1px solid #ccc; border-radius: 6px; padding: 6px 12px; } .figures dt { font-size: 13px; color: #555; } .figures dd { margin: 0; font-size: 20px; font-weight: 600; }
.text { font: 16px/2 'DejaVu Sans Mono', Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid #ccc; border-radius: 6px; padding: 10px 14px; }
.text .prompt { color: #666; } .text span[title] { border-radius: 3px; padding: 2px 0; box-shadow: -1px 0 0 #fff; }
.first { outline: 2px solid #444; outline-offset: -1px; } .correction { border-bottom: 3px double #444; } .bonus { border-top: 2px solid #444; }
.key span { display: inline-block; padding: 0 7px; margin-right: 4px; border-radius: 3px; line-height: 22px; } .key { font-size: 14px; margin: 6px 0; }
table { border-collapse: collapse; font-size: 14px; } th, td { text-align: left; padding: 3px 10px 3px 0; border-bottom: 1px solid #ddd; }
dl.words dt { font-weight: 600; } dl.words dd { margin: 0 0 8px; }
@media (prefers-reduced-motion: reduce) { * { transition: none !important; } }
"""  # noqa: E501


def page(
    trace: Trace,
    plain: Trace | None = None,
    pinned: Sequence[PinnedCurves] = (),
    rows: Sequence[Sequence[str]] = (),
    position: int | None = None,
) -> str:
    """An HTML document of a decode.

    Args:
        trace: of self-draft decoding.
        plain: ordinary decoding of the same prompt; with it the page says whether the texts are equal, and the speedup.
        pinned: runs that stay as thin lines.
        rows: a table to compare, its header first.
        position: of the token whose exits are shown; None = the last accepted draft.
    """
    figures = [
        ("Staircase", "Play it back round by round: drafts fill the low layers, verification the rest.",
         staircase_player(trace)),
        ("Token by token", "Exit depth, confidence, drafts, acceptance and speed over the positions of the text.",
         dashboard(trace, plain, pinned)),
        ("Over the layers", "The schedule, where tokens came from, and the exits of one token.",
         exits(trace, position)),
    ]  # fmt: skip
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>Self-draft decoding: {_plain(_short(_prompt(trace)))}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Self-draft decoding</h1>{_made(trace)}{_summary(trace, plain)}",
        f"<h2>Text</h2>{_text(trace)}",
    ]
    for number, (title, says, figure) in enumerate(figures):
        drawn = _drawn(figure, first=number == 0)
        parts.append(f'<h2>{title}</h2><p>{says}</p><div role="img" aria-label="{_plain(says)}">{drawn}</div>')
    if rows:
        parts.append(f"<h2>Runs compared</h2>{_table(rows)}")
    words = "".join(f"<dt>{_plain(term)}</dt><dd>{_plain(said)}</dd>" for term, said in GLOSSARY.items())
    parts.append(f'<h2>Words</h2><dl class="words">{words}</dl></body></html>')
    return "\n".join(parts)


def _drawn(figure: go.Figure, first: bool) -> str:
    figure.update_layout(paper_bgcolor="#ffffff", plot_bgcolor="#ffffff", font_color="#333333")
    return str(to_html(figure, config=_CONFIG, include_plotlyjs=first, full_html=False, auto_play=False))


def _made(trace: Trace) -> str:
    model, machine = trace.model, trace.environment
    facts = [
        str(model.get("id", "a model")),
        f"{trace.num_layers} layers, exits after {', '.join(map(str, trace.exit_layers))} ({model.get('heads')} heads)",
        f"{model.get('device')}, {model.get('dtype')}",
        str(machine.get("accelerator") or machine.get("processor") or ""),
        str(trace.settings or ""),
    ]
    return f'<p class="made">{_plain(" · ".join(fact for fact in facts if fact))}</p>'


def _summary(trace: Trace, plain: Trace | None) -> str:
    summary: dict[str, Any] = trace.summary()
    cells = [(name, summary[key], how) for name, key, how in _FIGURES if summary.get(key) is not None]
    verdict = "Not compared with ordinary decoding."
    if plain is not None:
        ours, theirs = summary["seconds_per_token"], plain.summary()["seconds_per_token"]
        if ours and theirs:
            cells.append(("speedup", theirs / ours, "{:.2f}×"))
        count = len(plain.token_ids)
        verdict = (
            f"✓ Equal: all {count} new tokens are those of ordinary decoding."
            if trace.token_ids == plain.token_ids
            else "✗ Different from ordinary decoding: a near-tie between the two best tokens can fall either way."
        )
    tiles = "".join(
        f'<div title="{_plain(GLOSSARY.get(name, ""))}"><dt>{name}</dt><dd>{how.format(value)}</dd></div>'
        for name, value, how in cells
    )
    return f'<dl class="figures">{tiles}</dl><p><b>{verdict}</b></p>'


def _text(trace: Trace) -> str:
    palette = depth_palette(range(1, trace.num_layers + 1), trace.num_layers)
    parts = [f'<span class="prompt">{_plain(visible(_prompt(trace)))}</span>']
    for row in trace.tokens[trace.tokens["kind"] != "prompt"].to_dict("records"):
        depth = int(row["exit_depth"])
        confidence = "" if pd.isna(row["confidence"]) else f", confidence {row['confidence']:.3f}"
        label = f"position {row['position']}, {row['kind']}, exit depth {depth}{confidence}"
        colour, ink = palette[depth]
        parts.append(
            f'<span class="{_plain(row["kind"])}" style="background:{colour};color:{ink}" title="{_plain(label)}">'
            f"{_plain(visible(row['text']))}</span>"
        )
    used = sorted({*trace.exit_layers, trace.num_layers})
    swatches = "".join(
        f'<span style="background:{palette[depth][0]};color:{palette[depth][1]}">{depth}</span>' for depth in used
    )
    kinds = "".join(f'<span class="{kind}">{kind}</span>' for kind in ("first", "correction", "bonus"))
    return (
        f'<div class="text" role="region" aria-label="Generated text, coloured by exit depth">{"".join(parts)}</div>'
        f'<p class="key">exit depth {swatches} of {trace.num_layers} layers &emsp; {kinds}</p>'
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = ["<tr>" + "".join(f"<th>{_plain(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{_plain(cell)}</td>" for cell in row) + "</tr>" for row in body]
    return f"<table>{''.join(lines)}</table>"


def _prompt(trace: Trace) -> str:
    return "".join(trace.tokens.loc[trace.tokens["kind"] == "prompt", "text"])


def _short(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _plain(text: object) -> str:
    return html.escape(str(text), quote=True)

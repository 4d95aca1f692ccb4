"""The logit lens over all layers of one text (nostalgebraist, 2020), and recorded rows in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch

from selfdraft_viz.heads import ExitHeads
from selfdraft_viz.lab.record import DenseRecord, record
from selfdraft_viz.text import Pieces

if TYPE_CHECKING:
    from selfdraft_viz.model import Model

CONTEXT_TOKENS = 10


def lens_table(model: Model, text: str | Sequence[int], layers: Sequence[int] | None = None) -> pd.DataFrame:
    """What the model would say next at each position of `text`, read at each layer through its own norm and LM head.

    Args:
        model: any supported one.
        text: or token ids.
        layers: in 1..L-1; None = all. The last layer is always there.

    Returns:
        One row a position and layer: `position`, `text` (the token there), `layer`, `guess` (the next token as that
        layer has it), `confidence` (0..1, un-annealed), `agrees` (with the last layer's).
    """
    token_ids = model.encode(text)
    top = model.num_layers
    lens = model.with_heads(ExitHeads(range(1, top) if layers is None else layers))
    dense = record(lens, torch.tensor([token_ids]))
    with torch.inference_mode():
        hidden = model.layered.decoder(input_ids=torch.tensor([token_ids], device=model.device), use_cache=False)
        final = model.layered.unembed(hidden.last_hidden_state[0]).float().softmax(dim=-1).amax(dim=-1).tolist()
    pieces, rows = Pieces(model.tokenizer), []
    confidences = dense.confidences(dict.fromkeys(lens.exit_layers, 1.0))
    for position, token_id in enumerate(token_ids):
        before = token_ids[:position]
        own = pieces.piece(before, token_id)
        for index, layer in enumerate([*lens.exit_layers, top]):
            last = layer == top
            guess = int(dense.true_ids[0, position] if last else dense.exit_ids[0, position, index])
            sure = final[position] if last else float(confidences[0, position, index])
            agrees = guess == dense.true_ids[0, position]
            rows.append((position, own, layer, pieces.piece([*before, token_id], guess), sure, bool(agrees)))
    return pd.DataFrame(rows, columns=["position", "text", "layer", "guess", "confidence", "agrees"])


def in_words(found: pd.DataFrame, dense: DenseRecord, model: Model) -> pd.DataFrame:
    """`confident_mistakes` to read: `kind`, `exit_layer`, `after` (the text before), `exit_says`, `model_says`,
    `confidence`, and `final_probability`, the final layer's of what the exit says."""
    pieces, rows = Pieces(model.tokenizer), []
    for row in found.to_dict("records"):
        before = [int(token) for token in dense.token_ids[row["text"], : row["position"] + 1]]
        recent = before[-CONTEXT_TOKENS:]
        after = pieces.continuation(before[: -len(recent)], recent)
        said, true = (pieces.piece(before, int(token)) for token in (row["exit_id"], row["true_id"]))
        rows.append(
            (row["kind"], row["exit_layer"], f"…{after}", said, true, row["confidence"], row["final_probability"])
        )
    names = ["kind", "exit_layer", "after", "exit_says", "model_says", "confidence", "final_probability"]
    return pd.DataFrame(rows, columns=names)

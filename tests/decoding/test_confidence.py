"""Known answers: what an exit check says, worked out again from transformers' own hidden states."""

from __future__ import annotations

import pytest
import strategies
import tiny
import torch
from hypothesis import given
from strategies import examples
from torch.nn import functional as F

import selfdraft_viz as sv
from selfdraft_viz.events import DraftingStopped, ExitCheck, Verified


@torch.no_grad()
def exit_logits(model: sv.Model, token_ids: list[int], layer: int, row: int) -> torch.Tensor:
    """z at `layer` for the row at `row` of `token_ids`, without a line of ours but the translators."""
    base = model.base
    ids = torch.tensor([token_ids])
    output = base(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    if layer == model.num_layers:
        return output.logits[0, row]
    hidden = output.hidden_states[layer][0, row]
    if model.heads.trained:
        weight, bias = model.heads.translators[layer]
        hidden = weight @ hidden + bias
    text = base.config.get_text_config()
    inner = {"gpt2": "transformer", "gpt_neox": "gpt_neox"}.get(text.model_type, "model")
    decoder = getattr(base, inner)
    decoder = getattr(decoder, "language_model", decoder)
    norm = getattr(decoder, {"gpt2": "ln_f", "gpt_neox": "final_layer_norm"}.get(text.model_type, "norm"))
    logits = F.linear(norm(hidden[None])[0], base.get_output_embeddings().weight)
    cap = getattr(text, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


@examples(25)
@given(decode=strategies.decodes(sampled=False))
def test_confidences_and_drafts_are_those_of_transformers_hidden_states(decode: strategies.Decode) -> None:
    """Breaks when an exit reads the wrong row or depth, leaves out a translator, the norm or the soft-capping, or
    divides by the wrong temperature. Rows behind a wrong draft count too: they are checked in the context they had."""
    model = decode.model
    checks: list[ExitCheck] = []
    tokens = list(decode.prompt)
    rounds = 0
    for event in decode.stream():
        if isinstance(event, ExitCheck):
            checks.append(event)
        elif isinstance(event, DraftingStopped):
            context = [*tokens, *event.draft_ids]
        elif isinstance(event, Verified):
            for check in checks:
                z = exit_logits(model, context, check.layer, check.position)
                annealed = torch.softmax(z / check.exit_temperature, dim=-1).max().item()
                assert check.confidence == pytest.approx(annealed, rel=1e-5)
                assert check.unannealed_confidence == pytest.approx(torch.softmax(z, dim=-1).max().item(), rel=1e-5)
                assert z[check.token_id] >= z.max() - 1e-6
            for offset, true_id in enumerate(event.true_ids):
                logits = exit_logits(model, context, model.num_layers, event.first_position - 1 + offset)
                assert logits[true_id] >= logits.max() - 1e-6
            checks = []
            rounds += 1
        elif hasattr(event, "kind"):
            tokens.append(event.token_id)
        if rounds == 6:
            break


def test_a_schedule_never_changes_which_token_is_drafted() -> None:
    """Breaks when the exit temperature enters more than the confidence."""
    model = tiny.load("llama", [2])
    drafted = set()
    for schedule in (sv.NoAnnealing(), sv.ConstantTemperature(50.0), sv.ConstantTemperature(0.02)):
        for sampling in (None, sv.Sampling(seed=3)):
            events = model.stream(
                [5, 6], sv.Settings(schedule=schedule, threshold=0, max_width=1), max_new_tokens=12, sampling=sampling
            )
            drafted.add((sampling, tuple(event.token_id for event in events if isinstance(event, ExitCheck))))
    assert len(drafted) == 2

"""Ordinary decoding: every token through every layer, one at a time."""

from __future__ import annotations

from collections.abc import Iterator

from selfdraft_viz.decoding.request import Clock, Request, Sequence, timed
from selfdraft_viz.events import DecodeFinished, DecodeStarted, Event


def decode_plain(request: Request) -> Iterator[Event]:
    """Ordinary decoding of `request` over the same layers and kernels that self-draft decoding uses."""
    clock = Clock()
    return timed(_decode(request, clock), clock)


def _decode(request: Request, clock: Clock) -> Iterator[Event]:
    sequence = Sequence(request, clock)
    num_layers = request.model.num_layers
    yield DecodeStarted(
        "plain", request.prompt_ids, request.max_new_tokens, num_layers, request.heads.exit_layers, request.sampling
    )
    yield from sequence.prefill()
    while sequence.finished is None:
        staircase = sequence.staircase
        staircase.push(sequence.tokens[-1:])
        for run in staircase.advance(num_layers):
            yield from sequence.ran(run, None, "plain", 0)
        (token,) = sequence.chooser.choose(staircase.logits(staircase.rows - 1, staircase.rows), len(sequence.tokens))
        yield sequence.commit(token, "plain", None, num_layers, None)
    yield DecodeFinished(sequence.finished, len(sequence.tokens) - len(request.prompt_ids), clock.now())

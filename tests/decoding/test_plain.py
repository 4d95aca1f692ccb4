"""What the stream of events of an ordinary decode says."""

from __future__ import annotations

import strategies
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from selfdraft_viz.events import Committed, DecodeFinished, DecodeStarted, LayersRan


@examples(15)
@given(decode=strategies.decodes())
def test_every_token_after_the_first_costs_each_layer_one_pass_of_one_row(decode: strategies.Decode) -> None:
    """Breaks when the yardstick itself, ordinary decoding, runs a layer more or less than once a token."""
    started, *events, finished = decode.model.stream_plain(decode.prompt, **decode.options)
    num_layers = decode.model.num_layers
    assert isinstance(started, DecodeStarted)
    assert isinstance(finished, DecodeFinished)
    assert started.method == "plain"
    assert finished.new_tokens == decode.max_new_tokens
    position = len(decode.prompt)
    for index, (ran, committed) in enumerate(zip(events[::2], events[1::2], strict=True)):
        assert isinstance(ran, LayersRan)
        assert isinstance(committed, Committed)
        assert (ran.first_layer, ran.last_layer, ran.round, ran.catch_up_rows) == (1, num_layers, None, 0)
        assert committed.position == ran.stop_position == position
        assert committed.exit_depth == num_layers
        if index == 0:
            assert (ran.phase, ran.first_position, committed.kind) == ("prefill", 0, "first")
        else:
            assert (ran.phase, ran.first_position, committed.kind) == ("plain", position - 1, "plain")
        position += 1
    trace = decode.plain()
    if decode.max_new_tokens > 1:
        assert trace.summary()["layer_passes_per_token"] == num_layers


@examples(25)
@given(decode=strategies.decodes(sampled=True), share=st.floats(0, 1))
def test_a_sampled_text_goes_on_as_it_would_have(decode: strategies.Decode, share: float) -> None:
    """Breaks when the noise of a token depends on where the prompt ended, and not on its position alone."""
    tokens = decode.plain().token_ids
    kept = int(share * (len(tokens) - 1))
    again = decode.model.generate_plain(
        decode.prompt + tokens[:kept], max_new_tokens=len(tokens) - kept, sampling=decode.sampling
    )
    assert tokens[:kept] + again.token_ids == tokens


@examples(10)
@given(decode=strategies.decodes())
def test_less_detail_gives_the_same_tokens(decode: strategies.Decode) -> None:
    """Breaks when the events asked for change what is decoded."""
    assert decode.plain(detail="tokens").token_ids == decode.plain(detail="full").token_ids
    assert len(decode.plain(detail="tokens").layer_passes) == 0

"""The output is exactly that of ordinary decoding: ours of transformers', self-draft of ours."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import strategies
import tiny
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import selfdraft_viz as sv
from selfdraft_viz.events import Committed, DraftingStopped, ExitCheck, SettingsChanged, SettingsRefused


@pytest.mark.parametrize("family", tiny.FAMILIES)
@examples(8)
@given(data=st.data())
def test_greedy_decoding_gives_what_transformers_generate_gives(family: str, data: st.DataObject) -> None:
    """Breaks when a family's layers get a wrong mask, wrong positions, rotary tables of another layer type, or a cache
    that they do not use."""
    model = tiny.load(family, seed=data.draw(st.integers(0, 3)))
    prompt = data.draw(st.one_of(strategies.prompts, strategies.long_prompts))
    max_new_tokens = min(tiny.CONTEXT - len(prompt), data.draw(st.integers(1, 24)))
    theirs = tiny.transformers_greedy(model, prompt, max_new_tokens)

    plain = model.generate_plain(prompt, max_new_tokens=max_new_tokens)
    tiny.assert_same_text(model, prompt, plain.token_ids, theirs)

    how = data.draw(strategies.settings_for(model.exit_layers, model.num_layers))
    selfdraft = model.generate(prompt, how, max_new_tokens=max_new_tokens)
    tiny.assert_same_text(model, prompt, selfdraft.token_ids, theirs)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_drafts_and_has_drafts_accepted_and_rejected(family: str) -> None:
    """Breaks when the small models stop exercising the decoder: without accepted and rejected drafts in every family,
    the equalities here would hold of a decoder that never drafts."""
    outcomes: set[str] = set()
    for seed in range(8):
        model = tiny.load(family, seed=seed)
        for threshold in (0.05, 0.2):
            how = sv.Settings(schedule=sv.NoAnnealing(), threshold=threshold)
            outcomes |= set(model.generate([7, 3, seed], how, max_new_tokens=24).drafts["outcome"])
        if outcomes == {"accepted", "rejected", "dropped"}:
            return
    raise AssertionError(f"only {outcomes}")


@examples(80)
@given(decode=strategies.decodes())
def test_selfdraft_gives_token_by_token_what_plain_decoding_gives(decode: strategies.Decode) -> None:
    """Breaks when a key or value of a wrong draft stays in a cache, a row misses a layer, or the noise of a draft is
    not that of the true token."""
    plain, selfdraft = decode.plain(), decode.selfdraft()
    assert selfdraft.token_ids == plain.token_ids
    assert selfdraft.finish_reason == plain.finish_reason
    assert len(plain.token_ids) == decode.max_new_tokens


@examples(40)
@given(decode=strategies.decodes(), data=st.data())
def test_selfdraft_ends_where_plain_decoding_ends(decode: strategies.Decode, data: st.DataObject) -> None:
    """Breaks when a token is committed after an end-of-sequence token, or when one in a draft is looked past."""
    model, free = decode.model, decode.plain()
    ends = data.draw(st.sets(st.sampled_from(free.token_ids), min_size=1, max_size=3), label="ends")
    first = next(index for index, token_id in enumerate(free.token_ids) if token_id in ends)
    with tiny.ends_with(model, sorted(ends)):
        plain, selfdraft = decode.plain(), decode.selfdraft()
        ignored = decode.selfdraft(stop_at_end=False)
        if decode.sampling is None:
            theirs = tiny.transformers_greedy(model, decode.prompt, decode.max_new_tokens)
            tiny.assert_same_text(model, decode.prompt, selfdraft.token_ids, theirs)
    assert plain.token_ids == selfdraft.token_ids == free.token_ids[: first + 1]
    assert plain.finish_reason == selfdraft.finish_reason == "end of sequence"
    assert ignored.token_ids == free.token_ids


def test_end_of_sequence_inside_a_draft_is_met_in_every_way() -> None:
    """Breaks when accepted, rejected, corrected and bonus ends are not all handled; and when the models here stop
    producing them."""
    met = set()
    for seed in range(40):
        model = tiny.load("llama", [1, 2, 3], seed % 4)
        prompt = [seed, 2 * seed]
        free = model.generate_plain(prompt, max_new_tokens=20).token_ids
        end = free[1 + seed % 10]
        for threshold in (0.0, 0.3, 0.9):
            how = sv.Settings(schedule=sv.NoAnnealing(), threshold=threshold, max_width=5)
            with tiny.ends_with(model, [end]):
                trace = model.generate(prompt, how, max_new_tokens=20)
            assert trace.token_ids == free[: free.index(end) + 1]
            if len(trace.rounds):
                met.add((trace.rounds["stop_reason"].iloc[-1], trace.tokens["kind"].iloc[-1]))
                if trace.rounds["stop_reason"].iloc[-1] == "end of sequence" and end not in free[:-1]:
                    assert trace.tokens["kind"].iloc[-1] == "accepted"
    assert {("end of sequence", "accepted"), ("width", "correction"), ("hard token", "bonus")} <= met, met


@examples(20)
@given(decode=strategies.decodes())
def test_settings_that_draft_nothing_decode_as_plain_decoding_does(decode: strategies.Decode) -> None:
    """Breaks when `NEVER` lets something exit, or a round without drafts commits nothing."""
    trace = decode.model.generate(decode.prompt, decode.settings.replace(threshold=sv.NEVER), **decode.options)
    assert trace.token_ids == decode.plain().token_ids
    assert len(trace.drafts) == 0
    assert set(trace.tokens["kind"]) <= {"prompt", "first", "bonus"}


@examples(20)
@given(decode=strategies.decodes())
def test_threshold_zero_drafts_every_token_at_the_first_exit(decode: strategies.Decode) -> None:
    """Breaks when a confidence that equals the threshold does not exit."""
    how = decode.settings.replace(threshold=0.0)
    trace = decode.model.generate(decode.prompt, how, **decode.options)
    assert trace.token_ids == decode.plain().token_ids
    first_exit = (how.exit_layers or decode.model.exit_layers)[0]
    assert set(trace.drafts["exit_depth"]) <= {first_exit}
    assert "hard token" not in set(trace.rounds["stop_reason"])


class Changing:
    """A settings source that goes on to the next of `makers` every so many decisions, and logs what it gave."""

    def __init__(self, makers: list[Callable[[], object]], every: int, model: sv.Model) -> None:
        self.makers = makers
        self.every = every
        self.model = model
        self.reads = 0
        self.last_valid: sv.Settings | None = None
        self.refusals = 0
        self._unfit: Callable[[], object] | None = None

    def __call__(self) -> object:
        make = self.makers[(self.reads // self.every) % len(self.makers)]
        self.reads += 1
        try:
            settings = make()
            settings.plan(self.model.exit_layers, self.model.num_layers)
        except (sv.SettingsError, AttributeError):
            self.refusals += make is not self._unfit
            self._unfit = make
            return make()
        self._unfit = None
        self.last_valid = settings
        return settings


@examples(50)
@given(decode=strategies.decodes(), data=st.data())
def test_changed_settings_hold_from_the_next_decision_on_and_invalid_ones_never(
    decode: strategies.Decode, data: st.DataObject
) -> None:
    """Breaks when a change waits for the next round, when an invalid setting ends the decode or is used, when it is not
    said, or when changing settings change the text."""
    model = decode.model
    valid = strategies.settings_for(model.exit_layers, model.num_layers).map(lambda one: lambda: one)
    unfit = [
        lambda: sv.Settings(max_depth=model.num_layers),  # does not fit this model
        lambda: sv.Settings(exit_layers=(model.num_layers + 3,)),
        lambda: sv.Settings(schedule=sv.PerLayerTemperature({model.num_layers: 1.0})),
        lambda: sv.Settings(threshold=1.5),  # cannot even be made
        lambda: "fast",  # no settings at all
    ]
    changes = data.draw(st.lists(st.one_of(valid, st.sampled_from(unfit)), max_size=6), label="changes")
    source = Changing([lambda: decode.settings, *changes], data.draw(st.integers(1, 5), label="every"), model)

    history: list[sv.Settings] = []
    refused, tokens = 0, []
    for event in model.stream(decode.prompt, source, **decode.options):
        in_force = source.last_valid
        if isinstance(event, SettingsChanged):
            assert event.version == len(history)
            assert event.settings == in_force
            history.append(event.settings)
        elif isinstance(event, SettingsRefused):
            assert event.message
            refused += 1
        elif isinstance(event, ExitCheck):
            assert history[event.settings_version] == in_force == history[-1]
            assert event.threshold == in_force.threshold
            assert event.exit_temperature == in_force.schedule.temperature(event.layer, model.num_layers)
            assert event.layer in (in_force.exit_layers or model.exit_layers)
            assert in_force.max_depth is None or event.layer <= in_force.max_depth
        elif isinstance(event, Committed):
            tokens.append(event.token_id)
    assert tokens == decode.plain().token_ids
    assert refused == source.refusals


@examples(30)
@given(
    decode=strategies.decodes(),
    variants=st.lists(
        st.tuples(st.floats(0, 0.5), st.integers(1, 4), strategies.exit_temperatures), min_size=2, max_size=12
    ),
)
def test_a_change_between_two_events_holds_at_the_very_next_decision(
    decode: strategies.Decode, variants: list[tuple[float, int, float]]
) -> None:
    """Breaks when settings are read once a round or once a row: a slider moved while layers run must hold at the check
    after them, and one moved after a check when it is asked whether to go on drafting."""
    choices = itertools.cycle(
        decode.settings.replace(threshold=threshold, max_width=width, schedule=sv.ConstantTemperature(temperature))
        for threshold, width, temperature in variants
    )
    box = [next(choices)]
    drafted, just_drafted = 0, False
    for event in decode.model.stream(decode.prompt, lambda: box[0], **decode.options):
        if isinstance(event, SettingsChanged):
            continue  # said before the decision that it is for
        now = box[0]
        if just_drafted and not isinstance(event, DraftingStopped):
            assert drafted < now.max_width, "went on drafting past the width"
        if isinstance(event, DraftingStopped):
            assert event.reason != "width" or drafted >= now.max_width
            drafted = 0
        just_drafted = isinstance(event, ExitCheck) and event.exited
        drafted += just_drafted
        if isinstance(event, ExitCheck):
            assert (event.threshold, event.exit_temperature) == (now.threshold, now.schedule.value)
        box[0] = next(choices)


def test_a_refused_setting_is_said_once_and_the_last_valid_one_stays() -> None:
    """Breaks when a slider left at an impossible place floods the stream, or when its return to it is no longer
    said."""
    model = tiny.load("llama", [1, 2])
    good, reads = sv.Settings(threshold=0.2), 0

    def source() -> sv.Settings:
        nonlocal reads
        reads += 1
        return sv.Settings(max_depth=99) if reads % 20 >= 10 else good  # a new object every time

    trace = model.generate([1, 2, 3], source, max_new_tokens=24)
    stretches = sum(read % 20 == 10 for read in range(1, reads + 1))
    assert stretches >= 2
    assert len(trace.refusals) == stretches
    assert "max_depth=99" in trace.refusals[0]
    assert "5 layers" in trace.refusals[0]
    assert trace.settings_history == (good,)
    assert trace.token_ids == model.generate_plain([1, 2, 3], max_new_tokens=24).token_ids


@examples(25)
@given(first=strategies.decodes(), second=strategies.decodes(), order=st.lists(st.booleans(), max_size=200))
def test_two_decodes_of_one_model_can_be_interleaved(
    first: strategies.Decode, second: strategies.Decode, order: list[bool]
) -> None:
    """Breaks when the model holds a state of a decode."""
    second = strategies.Decode(
        first.model,
        second.prompt,
        sv.Settings(threshold=second.settings.threshold, max_width=second.settings.max_width),
        second.max_new_tokens,
        second.sampling,
    )
    streams = [(one.model.stream(one.prompt, one.settings, **one.options), one, []) for one in (first, second)]
    for pick in order:
        stream, _, tokens = streams[pick]
        event = next(stream, None)
        if isinstance(event, Committed):
            tokens.append(event.token_id)
    for stream, one, tokens in streams:
        tokens += [event.token_id for event in stream if isinstance(event, Committed)]
        assert tokens == one.plain().token_ids

"""Hypothesis strategies: schedules, settings, prompts, and whole decodes of small models."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import tiny
from hypothesis import settings
from hypothesis import strategies as st

import selfdraft_viz as sv
from selfdraft_viz.events import Event


def examples(count: int) -> settings:
    """`@examples(60)`: that many examples where the profile has its usual 50, more or fewer where it has."""
    return settings(max_examples=max(1, count * settings.default.max_examples // 50))


alphas = st.floats(-0.9, 4.0)
exit_temperatures = st.floats(0.2, 5.0)


def schedules(exit_layers: tuple[int, ...]) -> st.SearchStrategy[sv.Schedule]:
    """Every kind of schedule, fit for a model with these exit layers."""
    return st.one_of(
        st.just(sv.NoAnnealing()),
        exit_temperatures.map(sv.ConstantTemperature),
        alphas.map(sv.LinearAnnealing),
        alphas.map(sv.CosineAnnealing),
        st.builds(sv.ExponentialAnnealing, alphas, st.floats(0.01, 20.0)),
        st.fixed_dictionaries(dict.fromkeys(exit_layers, exit_temperatures)).map(sv.PerLayerTemperature),
    )


policies = st.one_of(
    st.just(sv.PaperBounds()),
    st.floats(0.0, 1.0).map(sv.ProductOfConfidences),
    st.builds(sv.CostAware, st.floats(0.01, 5.0), st.floats(0.01, 5.0), st.floats(0.1, 50.0)),
)

thresholds = st.one_of(st.floats(0.0, 0.6), st.floats(0.0, 1.0), st.sampled_from([0.0, 1.0, sv.NEVER]))


@st.composite
def settings_for(draw: st.DrawFn, exit_layers: tuple[int, ...], num_layers: int) -> sv.Settings:
    """Settings that are valid for a model with exit heads at `exit_layers`."""
    subset = draw(st.none() | st.sets(st.sampled_from(exit_layers), min_size=1).map(sorted).map(tuple))
    shallowest = (subset or exit_layers)[0]
    return sv.Settings(
        schedule=draw(schedules(exit_layers)),
        threshold=draw(thresholds),
        max_depth=draw(st.none() | st.integers(shallowest, num_layers - 1)),
        max_width=draw(st.none() | st.integers(1, 8)),
        exit_layers=subset,
        policy=draw(policies),
    )


token_ids = st.integers(0, tiny.VOCABULARY - 1)
prompts = st.lists(token_ids, min_size=1, max_size=12)
long_prompts = st.lists(token_ids, min_size=tiny.CONTEXT - 20, max_size=tiny.CONTEXT - 1)
samplings = st.builds(
    sv.Sampling,
    temperature=st.floats(0.3, 2.0),
    top_p=st.none() | st.floats(0.05, 1.0),
    top_k=st.none() | st.integers(1, tiny.VOCABULARY),
    seed=st.integers(0, 2**63 - 1),
)


@st.composite
def models(draw: st.DrawFn, heads: bool = True) -> sv.Model:
    """A small float64 model of any family, with logit-lens or random trained heads at random layers."""
    family, seed = draw(st.sampled_from(sorted(tiny.FAMILIES))), draw(st.integers(0, 2))
    num_layers = tiny.load(family, seed=seed).num_layers
    exit_layers = draw(st.sets(st.integers(1, num_layers - 1), min_size=1).map(sorted))
    model = tiny.load(family, exit_layers, seed)
    return tiny.with_random_heads(model, seed) if heads and draw(st.booleans()) else model


@dataclass(frozen=True)
class Decode:
    """One decode to be made: the model and all that it is asked for."""

    model: sv.Model
    prompt: list[int]
    settings: sv.Settings
    max_new_tokens: int
    sampling: sv.Sampling | None

    def __repr__(self) -> str:  # so that a failing example can be made again by hand
        model = self.model
        return (
            f"Decode({model.layered.config.model_type} of {model.num_layers} layers, {model.heads.kind} at "
            f"{model.exit_layers}, {self.prompt}, {self.settings}, {self.max_new_tokens}, {self.sampling})"
        )

    @property
    def options(self) -> dict[str, Any]:
        return {"max_new_tokens": self.max_new_tokens, "sampling": self.sampling}

    def stream(self, **changes: Any) -> list[Event]:
        stream = self.model.stream(self.prompt, self.settings, **{**self.options, **changes})
        return list(islice(stream, 20_000))  # a decode that stalls must fail, not hang

    def selfdraft(self, **changes: Any) -> sv.Trace:
        return self.model.generate(self.prompt, self.settings, **{**self.options, **changes})

    def plain(self, **changes: Any) -> sv.Trace:
        return self.model.generate_plain(self.prompt, **{**self.options, **changes})


@st.composite
def decodes(draw: st.DrawFn, sampled: bool | None = None) -> Decode:
    """Greedy and sampled decodes; sometimes of a prompt so long that the context is filled to its end."""
    model = draw(models())
    if draw(st.integers(0, 3)) == 0:
        prompt = draw(long_prompts)
        max_new_tokens = min(tiny.CONTEXT - len(prompt), 20)
    else:
        prompt, max_new_tokens = draw(prompts), draw(st.integers(1, 20))
    sampled = draw(st.booleans()) if sampled is None else sampled
    return Decode(
        model,
        prompt,
        draw(settings_for(model.exit_layers, model.num_layers)),
        max_new_tokens,
        draw(samplings) if sampled else None,
    )

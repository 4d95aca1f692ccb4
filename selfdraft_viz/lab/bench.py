"""The speed bench: the same prompts, decoded greedily by each contender in turn, in one process.

Every contender makes exactly the same number of tokens (end-of-sequence tokens end nothing), the order of the
contenders is rotated, and a time is wall clock around a whole call, prefill included. Ratios are paired: of two
contenders' times for the same prompt in the same repeat.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pandas as pd

from selfdraft_viz.errors import PromptError, SelfDraftError, SettingsError
from selfdraft_viz.lab.bench_report import BenchReport, first_difference, repeated_share
from selfdraft_viz.lab.contenders import CONTENDERS, Contender, TransformersGenerate, Unavailable, Workbench
from selfdraft_viz.lab.texts import Prompt
from selfdraft_viz.model import Model
from selfdraft_viz.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with (calls done, calls in all, what runs now)."""

_ORDERS = ("rotated", "shuffled", "fixed")


@dataclass(frozen=True)
class BenchOptions:
    """What a bench does.

    Attributes:
        contenders: keys of `CONTENDERS`.
        new_tokens: tokens that every call makes.
        repeats: timed rounds over all prompts, after one untimed round.
        order: "rotated": the next contender goes first at the next prompt and in the next repeat; "shuffled": by
            `seed`; "fixed": as in `contenders`.
        seed: of the shuffled order.
        early_exit_layers: layers tried for transformers' early exit, of which the fastest one is timed; None = L/8,
            L/4, 3L/8, L/2 and 3L/4.
        lookup_tokens: `prompt_lookup_num_tokens` of transformers' prompt lookup.
    """

    contenders: tuple[str, ...] = ("transformers", "early-exit", "prompt-lookup", "plain", "self-draft")
    new_tokens: int = 96
    repeats: int = 3
    order: Literal["rotated", "shuffled", "fixed"] = "rotated"
    seed: int = 0
    early_exit_layers: tuple[int, ...] | None = None
    lookup_tokens: int = 10

    def __post_init__(self) -> None:
        unknown = [key for key in self.contenders if key not in CONTENDERS]
        if unknown or not self.contenders:
            raise SettingsError(f"contenders={list(self.contenders)}: choose from {', '.join(CONTENDERS)}")
        if len(set(self.contenders)) < len(self.contenders):
            raise SettingsError(f"contenders={list(self.contenders)}: name each one once")
        for name, least in (("new_tokens", 2), ("repeats", 1), ("lookup_tokens", 1)):
            if getattr(self, name) < least:
                raise SettingsError(f"{name}={getattr(self, name)!r}: use a whole number of at least {least}")
        if self.order not in _ORDERS:
            raise SettingsError(f"order={self.order!r}: use one of {', '.join(_ORDERS)}")


def run_bench(
    model: Model,
    prompts: Sequence[Prompt],
    settings: Settings | None = None,
    options: BenchOptions | None = None,
    *,
    stock: PreTrainedModel | None = None,
    progress: Progress | None = None,
) -> BenchReport:
    """Decode `prompts` by each contender in turn and time it.

    Args:
        model: what `selfdraft_viz.load` returned.
        prompts: what to decode; see `selfdraft_viz.lab.texts`.
        settings: of self-draft decoding; None = the model's preset.
        options: what to run, and how often; None = the defaults.
        stock: a transformers model of the same weights for the transformers contenders; None = loaded from where
            `model` is from. Its generation config is replaced.
        progress: called before every call, first in the warm-up, then in the timed rounds.

    Raises:
        SettingsError, PromptError: options, settings or a prompt do not fit. LoadError: there is no stock model to
        load.
    """
    options = options or BenchOptions()
    bench = Workbench(model, settings, options, stock)
    ids = [model.encode(prompt.text) for prompt in prompts]
    if not ids:
        raise PromptError("no prompts: give at least one")
    contenders = [CONTENDERS[key](bench) for key in options.contenders]
    for prompt_ids in ids:  # one that is too long is refused here, before work is done
        model.stream_plain(prompt_ids, max_new_tokens=options.new_tokens)
    tell = progress or (lambda done, total, title: None)
    running, left_out = _warm_up(contenders, options, [prompt.kind for prompt in prompts], ids, tell)
    if not running:
        raise SettingsError(f"none of the contenders can run on this model: {left_out}")
    calls = list(_timed_calls(bench, running, ids, tell))

    outputs: dict[str, list[list[int]]] = {
        contender.key: [call.token_ids for call in calls if call.contender == contender.key and call.repeat == 0]
        for contender in running
    }
    reference = next(key for key in ("transformers", "plain", *outputs) if key in outputs)
    expected = outputs[reference]
    runs = pd.DataFrame([call.row(prompts[call.prompt].kind) for call in calls])
    differences = [first_difference(call.token_ids, expected[call.prompt]) for call in calls]
    runs["first_difference"] = pd.array(differences, dtype="Int64")
    decodes = [
        {"prompt": call.prompt, "contender": call.contender, **call.figures}
        for call in calls
        if call.figures and call.repeat == 0
    ]
    return BenchReport(
        runs=runs,
        decodes=pd.DataFrame(decodes, columns=None if decodes else ["prompt", "contender"]),
        outputs=outputs,
        prompts=[
            {**asdict(prompt), "prompt_tokens": len(prompt_ids), "repetition": repeated_share(token_ids)}
            for prompt, prompt_ids, token_ids in zip(prompts, ids, expected, strict=True)
        ],
        contenders={contender.key: {"title": contender.title, **contender.settings()} for contender in running},
        left_out=left_out,
        reference=reference,
        model=model.describe(),
        environment=_environment(model, ids[0]),
        options=asdict(options),
    )


def _warm_up(
    contenders: Sequence[Contender],
    options: BenchOptions,
    kinds: Sequence[str],
    ids: Sequence[tuple[int, ...]],
    tell: Progress,
) -> tuple[list[Contender], dict[str, str]]:
    """Every contender over every prompt, or over one of each kind where the rest would warm nothing; untimed.

    Returns:
        Those that run, and by key why others do not.
    """
    one_of_each_kind = list(dict(zip(reversed(kinds), reversed(ids), strict=True)).values())
    running, left_out = [], {}
    warming = {contender: ids if contender.by_shape else one_of_each_kind for contender in contenders}
    total, done = sum(map(len, warming.values())), 0
    for contender, prompts in warming.items():
        try:
            tell(done, total, f"warm-up: {contender.title}")
            contender.prepare(one_of_each_kind)
            for prompt_ids in prompts:
                tell(done, total, f"warm-up: {contender.title}")
                done += 1
                made = len(contender.token_ids(contender.decode(prompt_ids)))
                if made != options.new_tokens:
                    raise RuntimeError(f"{made} tokens where {options.new_tokens} were asked for")
        except Unavailable as reason:
            left_out[contender.key] = str(reason)
        except Exception as error:
            if not isinstance(contender, TransformersGenerate) or isinstance(error, SelfDraftError):
                raise
            left_out[contender.key] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        else:
            running.append(contender)
    return running, left_out


@dataclass(frozen=True)
class _Call:
    """One timed call."""

    prompt: int
    repeat: int
    contender: str
    place: int
    seconds: float
    token_ids: list[int]
    figures: dict[str, Any]

    def row(self, kind: str) -> dict[str, Any]:
        names = ("prompt", "repeat", "contender", "place", "seconds")
        return {"kind": kind, **{name: getattr(self, name) for name in names}}


def _timed_calls(
    bench: Workbench, running: Sequence[Contender], ids: Sequence[tuple[int, ...]], tell: Progress
) -> Iterator[_Call]:
    total, done = bench.options.repeats * len(ids) * len(running), 0
    for repeat in range(bench.options.repeats):
        for prompt, prompt_ids in enumerate(ids):
            for place, contender in enumerate(_turn(running, bench.options, repeat, prompt)):
                tell(done, total, contender.title)
                output, seconds = bench.timed(contender.decode, prompt_ids)
                yield _Call(
                    prompt,
                    repeat,
                    contender.key,
                    place,
                    seconds,
                    contender.token_ids(output),
                    contender.figures(output),
                )
                done += 1
    tell(total, total, "done")


def _turn(running: Sequence[Contender], options: BenchOptions, repeat: int, prompt: int) -> list[Contender]:
    """The contenders in the order in which they decode one prompt of one repeat."""
    order = list(running)
    if options.order == "shuffled":
        random.Random(f"{options.seed} {repeat} {prompt}").shuffle(order)
    elif options.order == "rotated":
        first = (repeat + prompt) % len(order)
        order = order[first:] + order[:first]
    return order


def _environment(model: Model, prompt_ids: tuple[int, ...]) -> dict[str, Any]:
    noted = model.generate_plain(prompt_ids[:1], max_new_tokens=1).environment
    return {**noted, "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d", time.gmtime())}

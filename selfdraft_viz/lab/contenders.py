"""What the speed bench times: ways of decoding greedily, ours and those of `transformers`.

One of your own is a subclass of `Contender`, entered in `CONTENDERS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from selfdraft_viz.errors import LoadError
from selfdraft_viz.events import Committed
from selfdraft_viz.heads import default_exit_layers
from selfdraft_viz.model import EMBEDDED, Model, embedded_folder
from selfdraft_viz.settings import Settings, check_exit_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from selfdraft_viz.lab.bench import BenchOptions


class Unavailable(Exception):
    """A contender cannot run on this model; the message says why, and the bench goes on without it."""


_TRIED_TOKENS = 32  # of each call, while layers are tried


class Contender:
    """One way of decoding greedily. `decode` is what is timed; everything else happens outside."""

    key: ClassVar[str]
    title: ClassVar[str]
    by_shape: ClassVar[bool] = True  # whether something is prepared, a graph for instance, for a prompt's length

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench

    def prepare(self, prompts: Sequence[tuple[int, ...]]) -> None:
        """Once before the warm-up, with the token ids of a prompt of each kind. Raises `Unavailable`."""

    def decode(self, prompt_ids: tuple[int, ...]) -> Any:
        """Decode `options.new_tokens` tokens."""
        raise NotImplementedError

    def token_ids(self, output: Any) -> list[int]:
        """The new tokens of what `decode` returned."""
        raise NotImplementedError

    def figures(self, output: Any) -> dict[str, Any]:
        """What else `output` tells: fields of `Trace.summary()`."""
        return {}

    def settings(self) -> dict[str, Any]:
        """How this contender was run, as plain data for the report."""
        return {}


class TransformersGenerate(Contender):
    """`transformers`' generate on a base of its own, loaded afresh: ours may carry other kernels."""

    key = "transformers"
    title = "transformers generate"
    by_shape = False

    def options(self) -> dict[str, Any]:
        """Keyword arguments for generate, beyond those that every contender of transformers gets."""
        return {}

    def decode(self, prompt_ids: tuple[int, ...]) -> list[int]:
        return self.generate(prompt_ids, self.bench.options.new_tokens)

    def generate(self, prompt_ids: tuple[int, ...], new_tokens: int) -> list[int]:
        stock: Any = self.bench.stock
        input_ids = torch.tensor([prompt_ids], device=stock.device)
        with torch.inference_mode():
            output = stock.generate(
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                max_new_tokens=new_tokens,
                **self.options(),
            )
        return output[0, len(prompt_ids) :].tolist()

    def token_ids(self, output: list[int]) -> list[int]:
        return output

    def settings(self) -> dict[str, Any]:
        return {"generate": {"do_sample": False, "eos_token_id": None, **self.options()}}


class TransformersEarlyExit(TransformersGenerate):
    """`transformers`' own self-speculation, which drafts with the first layers of the model (as in LayerSkip).

    Drafting is governed by its own defaults: up to `num_assistant_tokens` = 20 tokens, stopped early below
    `assistant_confidence_threshold` = 0.4. Every layer in 1..L-1 works as its exit; the fastest of those tried is
    timed.
    """

    key = "early-exit"
    title = "transformers early exit"

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        num_layers = bench.model.num_layers
        layers = bench.options.early_exit_layers
        default = {*default_exit_layers(num_layers), max(1, 3 * num_layers // 4)}
        self._tried = dict.fromkeys(check_exit_layers(sorted(default) if layers is None else layers, num_layers), 0.0)
        self._exit_layer = next(iter(self._tried))

    def prepare(self, prompts: Sequence[tuple[int, ...]]) -> None:
        if _runs_all_layers(self.bench.stock):
            kind = self.bench.stock.config.model_type
            raise Unavailable(f"transformers runs all layers of {kind!r} models, whatever assistant_early_exit says")
        if len(self._tried) == 1:
            return
        short = partial(self.generate, new_tokens=min(_TRIED_TOKENS, self.bench.options.new_tokens))
        short(prompts[0])  # whatever happens only once
        for layer in self._tried:
            self._exit_layer = layer
            self._tried[layer] = sum(self.bench.timed(short, prompt)[1] for prompt in prompts)
        self._exit_layer = min(self._tried, key=lambda layer: self._tried[layer])

    def options(self) -> dict[str, Any]:
        return {"assistant_early_exit": self._exit_layer}

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "seconds_by_exit_layer_tried": self._tried}


class TransformersPromptLookup(TransformersGenerate):
    """`transformers`' prompt lookup: drafts are copied from where the last tokens occurred before."""

    key = "prompt-lookup"
    title = "transformers prompt lookup"

    def options(self) -> dict[str, Any]:
        return {"prompt_lookup_num_tokens": self.bench.options.lookup_tokens}


class Plain(Contender):
    """Our ordinary decoding."""

    key = "plain"
    title = "plain decoding"

    def decode(self, prompt_ids: tuple[int, ...]) -> list[Any]:
        return list(
            self.bench.model.stream_plain(
                prompt_ids, max_new_tokens=self.bench.options.new_tokens, stop_at_end=False, detail="tokens"
            )
        )

    def token_ids(self, output: list[Any]) -> list[int]:
        return [event.token_id for event in output if isinstance(event, Committed)]

    def figures(self, output: list[Any]) -> dict[str, Any]:
        return self.bench.model.recorder().record(output).summary()


class SelfDraft(Plain):
    """Our self-draft decoding."""

    key = "self-draft"
    title = "self-draft decoding"

    def decode(self, prompt_ids: tuple[int, ...]) -> list[Any]:
        return list(
            self.bench.model.stream(
                prompt_ids,
                self.bench.draft_settings,
                max_new_tokens=self.bench.options.new_tokens,
                stop_at_end=False,
                detail="tokens",
            )
        )

    def settings(self) -> dict[str, Any]:
        return {"settings": self.bench.draft_settings.to_dict()}


CONTENDERS: dict[str, type[Contender]] = {
    contender.key: contender
    for contender in (TransformersGenerate, TransformersEarlyExit, TransformersPromptLookup, Plain, SelfDraft)
}
"""By key, in the order of the table."""


class Workbench:
    """What the contenders share.

    Attributes:
        model: ours.
        draft_settings: of the self-draft contender.
        options: of the bench.
    """

    def __init__(
        self, model: Model, settings: Settings | None, options: BenchOptions, stock: PreTrainedModel | None = None
    ) -> None:
        self.model = model
        self.draft_settings = model.preset if settings is None else settings
        self.draft_settings.plan(model.exit_layers, model.num_layers)  # refuse before work is done
        self.options = options
        self._stock = None if stock is None else _greedy_without_end(stock)

    @property
    def stock(self) -> PreTrainedModel:
        """The transformers contenders' model, loaded when it is first used."""
        if self._stock is None:
            self._stock = _greedy_without_end(load_stock(self.model))
        return self._stock

    def timed(self, call: Callable[[tuple[int, ...]], Any], prompt_ids: tuple[int, ...]) -> tuple[Any, float]:
        """What `call(prompt_ids)` returns, and its wall-clock seconds, work on a GPU included."""
        _synchronize(self.model.device)
        started = time.perf_counter()
        output = call(prompt_ids)
        _synchronize(self.model.device)
        return output, time.perf_counter() - started


def load_stock(model: Model) -> PreTrainedModel:
    """The base of `model` once more, as transformers itself loads it, on the same device and in the same dtype.

    Raises:
        LoadError: `model` was not loaded from a folder or hub id.
    """
    from transformers import AutoModelForCausalLM

    source = str(embedded_folder()) if model.name == EMBEDDED else model.name
    try:
        stock = AutoModelForCausalLM.from_pretrained(
            source, revision=model.revision, dtype=model.dtype, use_safetensors=True, trust_remote_code=False
        )
    except Exception as error:  # safetensors, torch and the hub each raise their own
        raise LoadError(
            f"a second copy of {source!r} for transformers cannot be loaded ({str(error).splitlines()[0]}): "
            "load the model from a folder or hub id, or give stock="
        ) from error
    return stock.to(model.device).eval()  # type: ignore[arg-type]


def _greedy_without_end(stock: PreTrainedModel) -> PreTrainedModel:
    """Greedy decoding in which an end-of-sequence token is one like any other. (`min_new_tokens` would forbid it.)"""
    from transformers import GenerationConfig

    stock.generation_config = GenerationConfig(do_sample=False, eos_token_id=None, pad_token_id=0)
    return stock


def _runs_all_layers(stock: PreTrainedModel) -> bool:
    """Whether a forward pass ignores `config.num_hidden_layers`, by which early exit stops the draft."""
    base = getattr(stock, stock.base_model_prefix)
    layers = getattr(base, "layers", None) or base.h
    ran: list[bool] = []
    hook = layers[-1].register_forward_hook(lambda *_: ran.append(True))
    before = base.config.num_hidden_layers
    try:
        base.config.num_hidden_layers = 1
        with torch.inference_mode():
            stock(torch.zeros((1, 2), dtype=torch.int64, device=stock.device), use_cache=False)
    finally:
        base.config.num_hidden_layers = before
        hook.remove()
    return bool(ran)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

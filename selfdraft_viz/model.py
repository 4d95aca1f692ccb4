"""`load`: a model ready to decode, ordinarily or drafting for itself; and `Model`, what it returns."""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from selfdraft_viz.decoding import Detail, Request, SettingsSource, decode_plain, decode_selfdraft
from selfdraft_viz.errors import LoadError, PromptError, SelfDraftError, SettingsError, UnsupportedModelError
from selfdraft_viz.events import Event
from selfdraft_viz.heads import HEADS_FILE, ExitHeads, default_exit_layers
from selfdraft_viz.layered import LayeredModel, family_of
from selfdraft_viz.layered.kernels import pack_linears
from selfdraft_viz.progress import Progress, fetch, reporter, reporting
from selfdraft_viz.schedules import LinearAnnealing, NoAnnealing
from selfdraft_viz.settings import NEVER, Sampling, Settings
from selfdraft_viz.trace import Trace, TraceRecorder, environment

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = "tales-14m"
PRESET_FILE = "preset.json"
PRESETS_FOLDER = "presets"
GENERAL_PRESETS = {
    "as the paper: linear": Settings(LinearAnnealing(1.0), threshold=0.6, max_width=6),
    "no annealing": Settings(NoAnnealing(), threshold=0.6, max_width=6),
    "careful": Settings(LinearAnnealing(1.0), threshold=0.9, max_width=4),
    "daring": Settings(NoAnnealing(), threshold=0.25, max_width=16),
    "a sure loss: checks, but never exits": Settings(threshold=NEVER, max_width=None),
}
"""For any model. The last drafts nothing and pays for every exit check: slower by construction."""
_DTYPES = ("float32", "bfloat16", "float16", "float64")
_KERNELS = ("auto", "compiled", "static", "torch")
_DETAILS = ("tokens", "checks", "full")


def load(
    name: str | Path | PreTrainedModel | None = None,
    *,
    device: str = "auto",
    dtype: str | torch.dtype | None = None,
    exit_layers: Sequence[int] | None = None,
    heads: str | Path | ExitHeads | None = None,
    revision: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: Progress | None = None,
    kernels: str = "auto",
    bitwise: bool = False,
    device_map: str | dict[str, Any] | None = None,
    offload_folder: str | Path | None = None,
) -> Model:
    """Load a causal LM and its exit heads.

    Args:
        name: None for the embedded model; a folder or hub id in Hugging Face form (safetensors); or a loaded
            `PreTrainedModel`, which is used as it is and keeps its device and dtype.
        device: "cpu", "cuda", "cuda:1", ...; "auto" = CUDA where there is one.
        dtype: "float32", "bfloat16", "float16" or "float64"; None = float32 on a CPU, bfloat16 on a GPU.
        exit_layers: layers in 1..L-1 to have exits at; None = those of the trained heads, or a few in the lower half.
        heads: "logit lens"; a file, folder or hub id with trained heads; an `ExitHeads`; None = trained heads that lie
            beside the model, the logit lens where there are none.
        revision: of the hub repository.
        tokenizer: for a `PreTrainedModel`; None = token ids in, ids out.
        progress: called with (what, how far, of how much or None) while files are fetched and weights are read.
        kernels: what layers run through. "torch": transformers' own modules. "compiled": float32 Llama-like models on a
            CPU, through kernels that numba compiles on first use (some seconds; kept on disk), several times faster.
            "static": passes of one fixed shape, which CUDA runs as graphs. "auto": compiled on a CPU and static on
            CUDA for a model loaded from a name, where that can be; else torch.
        bitwise: only kernels that compute a row the same to the last bit, whatever it is computed with, so that
            self-draft and ordinary decoding agree in near-ties too: compiled ones do, and static ones.
        device_map: as in transformers, spread layers over devices ("auto", or a map from module names to devices,
            "cpu" and "disk"); needs accelerate. `device` is then ignored.
        offload_folder: for what `device_map` puts on "disk".

    Raises:
        LoadError: the model or the heads cannot be read.
        UnsupportedModelError: the model's family is not among `selfdraft_viz.layered.FAMILIES`.
        HeadsMismatchError: the heads were trained for another model.
        SettingsError: device, dtype or exit layers are out of range.
    """
    if kernels not in _KERNELS:
        raise SettingsError(f"kernels={kernels!r}: use one of {', '.join(_KERNELS)}")
    if bitwise and kernels == "torch":
        raise SettingsError("kernels='torch' with bitwise=True: use kernels='auto', 'compiled' or 'static'")
    with_name = EMBEDDED if name is None else name
    target, preset, presets = _device(device), None, dict[str, Settings]()
    if not isinstance(with_name, (str, Path)):
        base, identity = with_name, with_name.config.name_or_path or type(with_name).__name__
        folder = None
    else:
        identity = str(with_name)
        source = str(embedded_folder()) if name is None else identity
        if source.startswith("~"):
            source = str(Path(source).expanduser())
        folder = Path(source) if Path(source).is_dir() else None
        base = _load_base(source, target, _dtype(dtype, target), revision, progress, device_map, offload_folder)
        tokenizer = tokenizer or _load_tokenizer(source, revision)
        pack_linears(base)
        if folder is not None and (folder / PRESET_FILE).is_file():
            preset = Settings.load(folder / PRESET_FILE)
        presets = _saved_presets(folder)
    base.eval()
    layered = LayeredModel(base)
    _choose_kernels(layered, kernels, bitwise, automatic=bitwise or isinstance(with_name, (str, Path)))
    chosen = _load_heads(heads, folder, layered, exit_layers, identity)
    model = Model(layered, tokenizer, chosen.to(layered.device, layered.dtype), identity, revision, preset, presets)
    if layered.compiled is not None:
        _compile_kernels(model, layered.compiled.kernels_kept(), progress)
    return model


def _compile_kernels(model: Model, kept: bool, progress: Progress | None) -> None:
    """Compile, or read from numba's cache, all that a decode calls, by a decode of two tokens: the user's first decode,
    and its tokens per second, are then as any other."""
    task = "Reading what was compiled" if kept else "Compiling for this processor (once)"
    bar = tqdm if progress is None else reporter(progress)
    with bar(total=1, desc=task, disable=kept and progress is None) as told:
        told.refresh()
        with suppress(SelfDraftError):  # logits that are not finite, a context too short: for who decodes to hear of
            deque(model.stream([0], Settings(threshold=0.0), max_new_tokens=2, stop_at_end=False), maxlen=0)
        told.update()


def _choose_kernels(layered: LayeredModel, kernels: str, bitwise: bool, automatic: bool) -> None:
    if kernels == "compiled" or (kernels == "auto" and automatic):
        layered.compile(required=kernels == "compiled")
    on_cuda = layered.device.type == "cuda" and not layered.spread
    if kernels == "static" or (kernels == "auto" and layered.compiled is None and (bitwise or (automatic and on_cuda))):
        layered.fix_shapes()


def embedded_folder() -> Path:
    """Where the embedded model lies."""
    return Path(str(files("selfdraft_viz"))) / "assets" / EMBEDDED


class Model:
    """A causal LM with exit heads. Decodes share it; none changes it.

    Attributes:
        base: the transformers model.
        tokenizer: or None: token ids in, ids out.
        heads: its `ExitHeads`.
        preset: the `Settings` used where none are given.
        presets: settings by name: those that came with the model, and a few for any model.
        name: hub id, folder, or the embedded model's name.
    """

    def __init__(
        self,
        layered: LayeredModel,
        tokenizer: PreTrainedTokenizerBase | None,
        heads: ExitHeads,
        name: str,
        revision: str | None = None,
        preset: Settings | None = None,
        presets: Mapping[str, Settings] | None = None,
    ) -> None:
        self.layered = layered
        self.tokenizer = tokenizer
        self.heads = heads
        self.name = name
        self.revision = revision
        self.preset = _fitting_preset(preset, heads, layered.num_layers)
        self._saved_presets = dict(presets or {})

    @property
    def base(self) -> PreTrainedModel:
        return self.layered.base

    @property
    def exit_layers(self) -> tuple[int, ...]:
        return self.heads.exit_layers

    @property
    def num_layers(self) -> int:
        return self.layered.num_layers

    @property
    def presets(self) -> dict[str, Settings]:
        """Settings by name that fit this model."""
        named = {"shipped with the model": self.preset, **self._saved_presets, **GENERAL_PRESETS}
        return {name: settings for name, settings in named.items() if self._fits(settings)}

    @property
    def device(self) -> torch.device:
        return self.layered.device

    @property
    def dtype(self) -> torch.dtype:
        return self.layered.dtype

    @property
    def context_length(self) -> int:
        """Tokens, prompt and new ones together."""
        return self.layered.context_length

    def with_heads(self, heads: ExitHeads | str) -> Model:
        """The same base with other exit heads: an `ExitHeads`, a file, a folder, or "logit lens" (same layers)."""
        chosen = _load_heads(heads, None, self.layered, self.exit_layers if heads == "logit lens" else None, self.name)
        chosen = chosen.to(self.device, self.dtype)
        return Model(self.layered, self.tokenizer, chosen, self.name, self.revision, self.preset, self._saved_presets)

    def stream(
        self,
        prompt: str | Sequence[int],
        settings: SettingsSource | None = None,
        *,
        max_new_tokens: int = 128,
        sampling: Sampling | None = None,
        stop_at_end: bool = True,
        detail: Detail = "full",
        top_tokens: int = 0,
    ) -> Iterator[Event]:
        """Self-draft decoding as it happens.

        Args:
            prompt: text, or token ids.
            settings: a `Settings`, or a callable read at every decision, so that a change takes effect at the next one;
                None = the model's preset.
            max_new_tokens: at least 1; prompt and new tokens must fit into the context.
            sampling: None = greedy.
            stop_at_end: stop after an end-of-sequence token.
            detail: "tokens", "checks" or "full"; less costs less time.
            top_tokens: how many of the likeliest tokens each exit check lists.

        Returns:
            A generator of events; close it to stop within a token.

        Raises:
            PromptError, SettingsError: before anything is decoded. NonFiniteLogitsError: while decoding.
        """
        request = self._request(prompt, max_new_tokens, sampling, stop_at_end, detail, top_tokens)
        return decode_selfdraft(request, self.preset if settings is None else settings)

    def stream_plain(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int = 128,
        sampling: Sampling | None = None,
        stop_at_end: bool = True,
        detail: Detail = "full",
    ) -> Iterator[Event]:
        """Ordinary decoding as it happens, over the same kernels; arguments as for `stream`."""
        return decode_plain(self._request(prompt, max_new_tokens, sampling, stop_at_end, detail, 0))

    def generate(
        self,
        prompt: str | Sequence[int],
        settings: SettingsSource | None = None,
        **options: Any,
    ) -> Trace:
        """Self-draft decoding to its end; arguments as for `stream`. A decode that fails or is interrupted raises, and
        the exception's attribute `trace` holds the trace so far."""
        return self.recorder().record(self.stream(prompt, settings, **options))

    def generate_plain(self, prompt: str | Sequence[int], **options: Any) -> Trace:
        """Ordinary decoding to its end; arguments as for `stream_plain`."""
        return self.recorder().record(self.stream_plain(prompt, **options))

    def compare(
        self,
        prompt: str | Sequence[int],
        settings: SettingsSource | None = None,
        *,
        detail: Detail = "full",
        top_tokens: int = 0,
        **options: Any,
    ) -> Comparison:
        """Ordinary and self-draft decoding of one prompt, one after the other in this process; arguments as for
        `stream`."""
        stream = self.stream(
            prompt, settings, detail=detail, top_tokens=top_tokens, **options
        )  # refuse before work is done
        plain = self.generate_plain(prompt, detail=detail, **options)
        return Comparison(self.recorder().record(stream), plain)

    def recorder(self) -> TraceRecorder:
        """An empty `TraceRecorder` that knows this model."""
        return TraceRecorder(self.tokenizer, self.describe(), {**environment(), **_torch_environment(self.device)})

    def describe(self) -> dict[str, Any]:
        """Identity of the model, as traces keep it."""
        return {
            "id": self.name,
            "revision": self.revision,
            "family": self.layered.config.model_type,
            "num_layers": self.num_layers,
            "vocab_size": self.layered.vocab_size,
            "heads": self.heads.kind,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def encode(self, prompt: str | Sequence[int]) -> tuple[int, ...]:
        """Token ids of a prompt.

        Raises:
            PromptError: it is empty, text without a tokenizer, or holds ids outside the vocabulary.
        """
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise PromptError(
                    "the prompt is text, but this model has no tokenizer: give token ids, or load() with tokenizer="
                )
            if not prompt:
                raise PromptError("the prompt is empty: give at least one character to go on from")
            try:
                prompt.encode()
            except UnicodeEncodeError as error:
                raise PromptError(
                    f"the prompt holds half a character ({prompt[error.start]!r} at {error.start}): leave it out"
                ) from error
            token_ids = tuple(self.tokenizer(prompt)["input_ids"])
        else:
            values = prompt.tolist() if hasattr(prompt, "tolist") else prompt
            values = list(values) if isinstance(values, Iterable) else [None]
            if any(isinstance(value, bool) or not hasattr(value, "__index__") for value in values):
                raise PromptError("the prompt must be text or a flat list of whole token ids")
            token_ids = tuple(int(value) for value in values)
        if not token_ids:
            raise PromptError("the prompt has no tokens: give at least one")
        vocab_size = self.layered.vocab_size
        outside = [token_id for token_id in token_ids if not 0 <= token_id < vocab_size]
        if outside:
            raise PromptError(f"token id {outside[0]} is outside the vocabulary: use ids in 0..{vocab_size - 1}")
        return token_ids

    @property
    def has_chat_template(self) -> bool:
        return getattr(self.tokenizer, "chat_template", None) is not None

    def chat(self, message: str) -> tuple[int, ...]:
        """Token ids of a prompt in which a user says `message`, wrapped in the tokenizer's chat template.

        Raises:
            PromptError: the message is empty, or the tokenizer has no such template.
        """
        if self.tokenizer is None or not self.has_chat_template:
            raise PromptError(f"{self.name} has no chat template: give the prompt as it is")
        self.encode(message)
        turns = [{"role": "user", "content": message}]
        text = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return self.encode(list(self.tokenizer(str(text), add_special_tokens=False)["input_ids"]))

    def _fits(self, settings: Settings) -> bool:
        try:
            settings.plan(self.exit_layers, self.num_layers)
        except SettingsError:
            return False
        return True

    @property
    def end_of_sequence_ids(self) -> frozenset[int]:
        """Every token that ends a text, as the generation configuration says, or else the model's."""
        for config in (self.base.generation_config, self.layered.config):
            value = getattr(config, "eos_token_id", None)
            if value is not None:
                return frozenset(value if isinstance(value, (list, tuple)) else [value])
        return frozenset()

    def _request(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int,
        sampling: Sampling | None,
        stop_at_end: bool,
        detail: Detail,
        top_tokens: int,
    ) -> Request:
        prompt_ids = self.encode(prompt)
        self._check_length(len(prompt_ids), max_new_tokens)
        if sampling is not None and not isinstance(sampling, Sampling):
            raise SettingsError(f"sampling={sampling!r}: give a Sampling, or None for greedy decoding")
        if detail not in _DETAILS:
            raise SettingsError(f"detail={detail!r}: use one of {', '.join(_DETAILS)}")
        if (
            isinstance(top_tokens, bool)
            or not hasattr(top_tokens, "__index__")
            or not 0 <= top_tokens <= self.layered.vocab_size
        ):
            raise SettingsError(f"top_tokens={top_tokens!r}: use a whole number in 0..{self.layered.vocab_size}")
        return Request(
            self.layered,
            self.heads,
            prompt_ids,
            int(max_new_tokens),
            self.end_of_sequence_ids if stop_at_end else frozenset(),
            sampling,
            detail,
            int(top_tokens),
        )

    def _check_length(self, prompt: int, max_new_tokens: int) -> None:
        context = self.context_length
        if isinstance(max_new_tokens, bool) or not hasattr(max_new_tokens, "__index__") or max_new_tokens < 1:
            raise SettingsError(f"max_new_tokens={max_new_tokens!r}: use a whole number of at least 1")
        if prompt >= context:
            raise PromptError(
                f"the prompt has {prompt} tokens, but the model's context holds {context}, new tokens included: "
                f"shorten it to {context - 1} or fewer"
            )
        if prompt + max_new_tokens > context:
            raise SettingsError(
                f"max_new_tokens={max_new_tokens} after a prompt of {prompt} tokens goes past the model's context of "
                f"{context}: use 1..{context - prompt}, or a shorter prompt"
            )
        if self.layered.rope_switch is not None:
            kind, switch = self.layered.rope_switch
            if prompt <= switch < prompt + max_new_tokens:
                remedy = (
                    f"use at most {switch - prompt} new tokens"
                    if prompt < switch
                    else "use a shorter or a longer prompt"
                )
                raise SettingsError(
                    f"this model's {kind} rotary embedding changes its frequencies at position {switch}, and the "
                    f"decode would cross it (prompt {prompt} + {max_new_tokens} new tokens): {remedy}"
                )


@dataclass(frozen=True)
class Comparison:
    """Both ways of decoding one prompt, and whether they agree."""

    selfdraft: Trace
    plain: Trace

    @property
    def equal(self) -> bool:
        return self.selfdraft.token_ids == self.plain.token_ids

    @property
    def first_difference(self) -> int | None:
        """Index of the first new token that differs; None if none does."""
        ours, theirs = self.selfdraft.token_ids, self.plain.token_ids
        for index, (a, b) in enumerate(zip(ours, theirs, strict=False)):
            if a != b:
                return index
        return None if len(ours) == len(theirs) else min(len(ours), len(theirs))

    @property
    def speedup(self) -> float | None:
        """Ordinary seconds per token / self-draft seconds per token, both measured in this process."""
        plain, ours = self.plain.summary()["seconds_per_token"], self.selfdraft.summary()["seconds_per_token"]
        return plain / ours if plain and ours else None

    def __str__(self) -> str:
        speed = "" if self.speedup is None else f"; {self.speedup:.2f}x the speed of ordinary decoding here"
        if self.equal:
            return f"equal: all {len(self.plain.token_ids)} new tokens are those of ordinary decoding{speed}"
        return (
            f"different from new token {self.first_difference} on: in {self.selfdraft.model.get('dtype')} a near-tie "
            f"between the two best tokens can fall either way{speed}"
        )


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise SettingsError(f"device={device!r} is unknown: use 'auto', 'cpu', 'cuda' or 'cuda:N'") from error
    if target.type == "cuda":
        if not torch.cuda.is_available():
            raise SettingsError(f"device={device!r}, but torch sees no CUDA device here: use device='cpu' (or 'auto')")
        if target.index is not None and target.index >= torch.cuda.device_count():
            raise SettingsError(
                f"device={device!r}, but there are {torch.cuda.device_count()} CUDA devices, from cuda:0 on"
            )
    return target


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise SettingsError(f"dtype={dtype!r}: use one of {', '.join(_DTYPES)}")
    return getattr(torch, name)


def _load_base(
    source: str,
    device: torch.device,
    dtype: torch.dtype,
    revision: str | None,
    progress: Progress | None,
    device_map: str | dict[str, Any] | None,
    offload_folder: str | Path | None,
) -> PreTrainedModel:
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

    if (source.startswith((".", "/", "~")) or Path(source).exists()) and not (Path(source) / "config.json").is_file():
        raise LoadError(f"{source!r} is no folder with a model in Hugging Face form: there is no config.json in it")
    try:
        described, _ = PreTrainedConfig.get_config_dict(source, revision=revision)
        family_of(str(described.get("model_type")))  # before transformers, which may not know it at all
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except UnsupportedModelError:
        raise
    except Exception as error:  # whatever a damaged configuration makes of itself
        raise LoadError(f"the model {source!r} cannot be read: {_first_line(error)}") from error
    spread: dict[str, Any] = {}
    if device_map is not None:
        if importlib.util.find_spec("accelerate") is None:
            raise LoadError("device_map needs accelerate: pip install 'selfdraft_viz[large]'")
        spread = {"device_map": device_map, "offload_folder": offload_folder}
    try:
        if progress is not None and not Path(source).exists():
            fetch(source, revision, progress)
        with reporting(progress):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source,
                revision=revision,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **spread,
            )
    except Exception as error:  # safetensors, torch and the hub each raise their own
        raise LoadError(
            f"the weights of {source!r} cannot be read (missing, damaged, or not safetensors): {_first_line(error)}"
        ) from error
    base, loading = loaded
    missing = sorted(loading["missing_keys"])
    if missing:  # transformers would go on with random ones
        raise LoadError(f"the weights of {source!r} are incomplete: {missing[0]} is missing ({len(missing)} in all)")
    return base if spread else base.to(device)


def _load_tokenizer(source: str, revision: str | None) -> PreTrainedTokenizerBase | None:
    from transformers import AutoTokenizer

    folder = Path(source)
    if folder.is_dir() and not any(folder.glob("*tokenizer*")) and not (folder / "vocab.json").is_file():
        return None
    try:
        return AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    except Exception as error:  # as above
        raise LoadError(f"the tokenizer of {source!r} cannot be read: {_first_line(error)}") from error


def _load_heads(
    heads: str | Path | ExitHeads | None,
    folder: Path | None,
    layered: LayeredModel,
    exit_layers: Sequence[int] | None,
    name: str,
) -> ExitHeads:
    if isinstance(heads, ExitHeads):
        found = heads
    elif heads == "logit lens" or (heads is None and (folder is None or not (folder / HEADS_FILE).is_file())):
        found = ExitHeads(default_exit_layers(layered.num_layers) if exit_layers is None else exit_layers)
    else:
        found = ExitHeads.load(_heads_file(folder if heads is None else heads))
    found.check_belongs_to(layered, name)
    if exit_layers is None:
        return found
    check = ExitHeads(exit_layers)  # in range before anything else is said of them
    check.check_belongs_to(layered, name)
    return found.select(check.exit_layers)


def _heads_file(where: Any) -> Path:
    path = Path(where).expanduser()
    if path.exists() or str(where).count("/") != 1:
        return path
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(str(where), HEADS_FILE))
    except Exception as error:  # the hub raises its own
        raise LoadError(
            f"no exit heads at {where!r}, neither a folder here nor on the hub: {_first_line(error)}"
        ) from error


def _fitting_preset(preset: Settings | None, heads: ExitHeads, num_layers: int) -> Settings:
    if preset is not None:
        try:
            preset.plan(heads.exit_layers, num_layers)
            return preset
        except SettingsError:  # made for other exit layers
            pass
    return Settings()


def _saved_presets(folder: Path | None) -> dict[str, Settings]:
    """What lies beside a model: `presets/NAME.json`."""
    files = sorted((folder / PRESETS_FOLDER).glob("*.json")) if folder else []
    return {file.stem.replace("_", " "): Settings.load(file) for file in files}


def _torch_environment(device: torch.device) -> dict[str, Any]:
    import transformers

    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "accelerator": accelerator,
    }


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]

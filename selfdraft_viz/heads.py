"""Exit heads: from a hidden state after l layers to vocabulary logits.

*Logit lens* (nostalgebraist 2020): the model's own final norm and LM head, on the shallow hidden state as it is.
*Trained*: an affine translator per exit layer first (the tuned lens of Belrose et al., arXiv 2303.08112), started at
the identity, a whole matrix or a low-rank one. The base model's parameters are never touched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from selfdraft_viz.errors import HeadsMismatchError, LoadError
from selfdraft_viz.layered.families import parameters_of
from selfdraft_viz.layered.kernels import pack_linears
from selfdraft_viz.settings import check_exit_layers
from selfdraft_viz.translators import LowRank, Translator, as_translator, moved

if TYPE_CHECKING:
    from selfdraft_viz.layered import LayeredModel

HEADS_FILE = "exit_heads.safetensors"
_FORMAT = "selfdraft_viz exit heads"
_FORMAT_VERSIONS = ("1", "2")  # 2 where there are low-rank translators


class ExitHeads:
    """The exit heads of one model.

    Args:
        exit_layers: the layers they read, in 1..L-1.
        translators: for each exit layer a (width, width) weight and a (width,) bias, or low-rank factors (width, rank)
            and (rank, width) and a (width,) bias, see `selfdraft_viz.translators`; None = logit lens.
        metadata: what the heads know of their model and training; saved with them. See `describe_base`.
        vocabulary: (tokens,) the token ids that the heads can draft, where that is not the whole vocabulary; None =
            all. A check reads the unembedding rows of these alone, which is most of its cost; its probabilities are
            over them alone too. Verification always uses the whole vocabulary, so the output stays exact.

    Attributes:
        exit_layers: shallow first.
        trained: whether there are translators.
        translators: by exit layer an `Affine` or a `LowRank`; None = logit lens.
        metadata: plain JSON data.
        vocabulary: as above, in ascending order.
    """

    def __init__(
        self,
        exit_layers: Sequence[int],
        translators: Mapping[int, tuple[Tensor, ...]] | None = None,
        metadata: Mapping[str, Any] | None = None,
        vocabulary: Tensor | None = None,
    ) -> None:
        self.exit_layers = check_exit_layers(exit_layers)
        self.translators: dict[int, Translator] | None = (
            None if translators is None else {layer: as_translator(translators[layer]) for layer in self.exit_layers}
        )
        self.metadata: dict[str, Any] = dict(metadata or {})
        self.vocabulary = None if vocabulary is None else vocabulary.to(torch.int64).sort().values
        self._token_ids: list[int] | None = None if self.vocabulary is None else self.vocabulary.tolist()
        self._unembeddings: WeakKeyDictionary[LayeredModel, nn.Linear] = WeakKeyDictionary()

    @property
    def trained(self) -> bool:
        return self.translators is not None

    @property
    def kind(self) -> str:
        return "trained" if self.trained else "logit lens"

    def logits(self, model: LayeredModel, layer: int, hidden_states: Tensor) -> Tensor:
        """(rows, width) hidden states after `layer` layers -> (rows, tokens) logits z of that exit, over
        `vocabulary`."""
        if self.translators is not None:
            hidden_states = self.translators[layer](hidden_states)
        return self.unembed(model, model.norm(hidden_states))

    def unembed(self, model: LayeredModel, normed: Tensor) -> Tensor:
        """(rows, width) hidden states after the final norm -> (rows, tokens) logits over `vocabulary`."""
        if self.vocabulary is None:
            return model.unembed(normed)
        if model not in self._unembeddings:
            self._unembeddings[model] = _rows_of(model.unembedding, self.vocabulary, model.device)
        return model.soft_capped(self._unembeddings[model](normed))

    def token_id(self, index: int) -> int:
        """The token that column `index` of the logits stands for."""
        return index if self._token_ids is None else self._token_ids[index]

    def whole(self, logits: Tensor, vocab_size: int) -> Tensor:
        """(rows, tokens) logits over `vocabulary` -> (rows, vocab_size), -inf for the tokens that are not in it."""
        if self.vocabulary is None:
            return logits
        spread = logits.new_full((logits.shape[0], vocab_size), float("-inf"))
        spread[:, self.vocabulary.to(logits.device)] = logits
        return spread

    def to(self, device: torch.device | str, dtype: torch.dtype) -> ExitHeads:
        """A copy whose translators are on `device` in `dtype`."""
        if self.translators is None:
            return self
        there = {layer: moved(translator, device, dtype) for layer, translator in self.translators.items()}
        return ExitHeads(self.exit_layers, there, self.metadata, self.vocabulary)

    def select(self, exit_layers: Sequence[int]) -> ExitHeads:
        """Only the heads at `exit_layers`.

        Raises:
            HeadsMismatchError: there is none at one of them.
        """
        wanted = check_exit_layers(exit_layers)
        if self.translators is None:
            return ExitHeads(wanted, None, self.metadata)
        missing = sorted(set(wanted) - set(self.exit_layers))
        if missing:
            raise HeadsMismatchError(
                f"no trained head at exit layer {', '.join(map(str, missing))}; there are heads at "
                f"{', '.join(map(str, self.exit_layers))}: choose among these, train more, or use heads='logit lens'"
            )
        return ExitHeads(wanted, self.translators, self.metadata, self.vocabulary)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file; a folder gets `exit_heads.safetensors`. Returns the file's path.

        Raises:
            LoadError: these are logit-lens heads, which have nothing to save.
        """
        if self.translators is None:
            raise LoadError("logit-lens heads have no parameters to save: pass heads='logit lens' when loading instead")
        path = Path(path)
        if path.suffix != ".safetensors":
            path.mkdir(parents=True, exist_ok=True)
            path = path / HEADS_FILE
        tensors = {}
        for layer, translator in self.translators.items():
            for part, tensor in translator._asdict().items():
                tensors[f"layer_{layer}.{part}"] = tensor.detach().cpu().contiguous()
        if self.vocabulary is not None:
            tensors["vocabulary"] = self.vocabulary.cpu().to(torch.int32)
        metadata = {
            "format": _FORMAT,
            "format_version": _FORMAT_VERSIONS[any(isinstance(one, LowRank) for one in self.translators.values())],
            "exit_layers": json.dumps(self.exit_layers),
            "metadata": json.dumps(self.metadata),
        }
        save_file(tensors, path, metadata=metadata)
        return path

    @classmethod
    def load(cls, path: str | Path) -> ExitHeads:
        """Read what `save` wrote: a file, or a folder that holds `exit_heads.safetensors`.

        Raises:
            LoadError: there is no such file, it is damaged, or of another format or version.
        """
        path = Path(path)
        file = path / HEADS_FILE if path.is_dir() else path
        if not file.is_file():
            raise LoadError(f"no exit heads at {file}: give the file or folder that heads.save() wrote")
        try:
            with safe_open(file, framework="pt") as opened:
                header = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as error:
            raise LoadError(f"{file} is damaged, or not a safetensors file: {error}") from error
        if header.get("format") != _FORMAT:
            raise LoadError(f"{file} is a safetensors file, but holds no exit heads of selfdraft_viz")
        if header.get("format_version") not in _FORMAT_VERSIONS:
            raise LoadError(
                f"{file} has format version {header.get('format_version')}, this program reads "
                f"{' and '.join(_FORMAT_VERSIONS)}: "
                "update selfdraft_viz, or train the heads again"
            )
        try:
            layers, metadata = json.loads(header["exit_layers"]), json.loads(header["metadata"])
            translators = {layer: _read_translator(tensors, f"layer_{layer}") for layer in layers}
            return cls(layers, translators, metadata, tensors.get("vocabulary"))
        except KeyError as error:
            raise LoadError(f"{file} is incomplete: {error} is missing") from error
        except (TypeError, ValueError) as error:
            raise LoadError(f"{file} is damaged: {error}") from error

    def check_belongs_to(self, model: LayeredModel, name: str) -> None:
        """Refuse heads that were trained for another model; logit-lens heads fit every model.

        Raises:
            HeadsMismatchError: the model differs in size, or in its unembedding or final norm.
            LoadError: a head is not finite, or of the wrong shape.
        """
        check_exit_layers(self.exit_layers, model.num_layers)
        if self.vocabulary is not None:
            self._check_vocabulary(self.vocabulary, model.vocab_size)
        if self.translators is None:
            return
        described = self.metadata.get("base") or {}
        theirs = {key: described.get(key) for key in ("num_layers", "width", "vocab_size", "hash")}
        ours = {key: value for key, value in describe_base(model).items() if key in theirs}
        if theirs != ours:
            different = ", ".join(
                f"{key} {theirs[key]} against {ours[key]}" for key in ours if ours[key] != theirs[key]
            )
            raise HeadsMismatchError(
                f"these exit heads were trained for another model, {described.get('id')!r}, not for {name!r} "
                f"({different}): load the heads of this model, train new ones, or use heads='logit lens'"
            )
        remedy = "load it from an undamaged file, train it again, or use heads='logit lens'"
        for layer, translator in self.translators.items():
            if not translator.fits(model.width):
                raise LoadError(f"the exit head at layer {layer} is not {model.width} numbers wide: {remedy}")
            if not all(torch.isfinite(tensor).all() for tensor in translator):
                raise LoadError(f"the exit head at layer {layer} holds NaN or infinite numbers: {remedy}")

    @staticmethod
    def _check_vocabulary(vocabulary: Tensor, vocab_size: int) -> None:
        ids = vocabulary.tolist()
        if not ids or ids[0] < 0 or ids[-1] >= vocab_size or len(set(ids)) < len(ids):
            raise LoadError(
                f"the {len(ids)} token ids that the exit heads draft must be different ones in 0..{vocab_size - 1}: "
                "load the heads from an undamaged file, or train them again"
            )


def _read_translator(tensors: Mapping[str, Tensor], name: str) -> Translator:
    parts = ("up", "down", "bias") if f"{name}.up" in tensors else ("weight", "bias")
    return as_translator(tuple(tensors[f"{name}.{part}"] for part in parts))


def _rows_of(unembedding: nn.Linear, vocabulary: Tensor, device: torch.device) -> nn.Linear:
    """The unembedding of some tokens alone."""
    parameters = {name: parameter.detach() for name, parameter in parameters_of(unembedding).items()}
    rows = vocabulary.to(parameters["weight"].device)
    reduced = nn.Linear(unembedding.in_features, len(rows), bias="bias" in parameters, device="meta")
    for name, parameter in parameters.items():
        setattr(reduced, name, nn.Parameter(parameter[rows].to(device), requires_grad=False))
    pack_linears(reduced)
    return reduced


def describe_base(model: LayeredModel) -> dict[str, Any]:
    """What trained heads keep of their base model, so that a wrong pairing is an error and not a bad plot.

    `hash` is a SHA-256 over the unembedding and the final norm, rounded to bfloat16 so that it does not depend on
    whether the model was loaded in float64, float32 or bfloat16.
    """
    digest = hashlib.sha256()
    for tensor in [parameters_of(model.unembedding)["weight"], *parameters_of(model.norm).values()]:
        rounded = tensor.detach().to(torch.bfloat16).cpu().contiguous()
        digest.update(rounded.view(torch.uint8).numpy().tobytes())
    return {
        "num_layers": model.num_layers,
        "width": model.width,
        "vocab_size": model.vocab_size,
        "hash": digest.hexdigest(),
    }


def default_exit_layers(num_layers: int) -> tuple[int, ...]:
    """Up to four exit layers spread over the lower half: L/8, L/4, 3L/8, L/2."""
    return tuple(sorted({max(1, round(num_layers * eighths / 8)) for eighths in (1, 2, 3, 4)}))

"""Dense records: what every exit says at every position of a text, so that any settings can be judged afterwards.

A confidence is needed at temperatures not known yet, and the logits are far too large to keep. It is
`max softmax(z / T) = exp(-F(1 / T))` with `F(b) = log sum exp(b * (z - max z))`, a smooth function of b: its values at
a few Chebyshev nodes of log b give it anywhere between them (Trefethen, *Approximation Theory and Approximation
Practice*, ch. 5). With `NODES` of them the confidence is off by less than 3e-5 in memory, and by less than 1e-4 once
saved. Making a record needs torch; reading one does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from tqdm.auto import tqdm

from selfdraft_viz.errors import PromptError, SettingsError
from selfdraft_viz.saved import read_table, reading

if TYPE_CHECKING:
    from torch import Tensor

    from selfdraft_viz.layered import LayeredModel
    from selfdraft_viz.model import Model

NODES = 32
LOWEST, HIGHEST = 1 / 4, 2.0  # of 1 / T: exit temperatures 0.5..4
_LOGITS_AT_ONCE = 2**24  # elements of vocabulary logits held at a time, twice over
_FORMAT_VERSION = 1
_METADATA = "selfdraft_viz_record"
_PARTITION_STEP, _LOGIT_STEP, _PROBABILITY_STEP = 2.0**-16, 2.0**-10, 2.0**-16  # what a file rounds to


@dataclass(frozen=True)
class DenseRecord:
    """Every exit at every row of some texts of one length.

    Attributes:
        token_ids: (texts, positions) the texts.
        true_ids: (texts, positions) the model's own greedy token after each row.
        exit_layers: the exits, shallow first.
        num_layers: L.
        exit_ids: (texts, positions, exits) the token each exit would draft.
        log_partition: (texts, positions, exits, NODES) F at the nodes.
        start: rows before this one belong to the prompt. A file does not keep what the exits said there; read back, it
            is -1 and NaN.
        top_logits: (texts, positions, exits) the logit of the exit's token; None where it was not recorded.
        true_gaps: (texts, positions, exits) by how much the true token's logit lies below that, at most 0; -inf where
            the exit heads cannot draft the true token.
        final_probabilities: (texts, positions, exits) the final layer's probability of the exit's token.
        kinds: a label a text, such as "stories"; empty where there are none.
        source: where it is from, as plain data: model, heads, whether the text was given or the model's own.
    """

    token_ids: NDArray[np.int32]
    true_ids: NDArray[np.int32]
    exit_layers: tuple[int, ...]
    num_layers: int
    exit_ids: NDArray[np.int32]
    log_partition: NDArray[np.float32]
    start: int = 0
    top_logits: NDArray[np.float32] | None = None
    true_gaps: NDArray[np.float32] | None = None
    final_probabilities: NDArray[np.float32] | None = None
    kinds: tuple[str, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def agrees(self) -> NDArray[np.bool_]:
        """(texts, positions, exits): whether the exit's token is the final layer's."""
        return self.exit_ids == self.true_ids[..., None]

    @property
    def rows(self) -> int:
        """Rows after the prompts, over all texts."""
        return self.token_ids.shape[0] * (self.token_ids.shape[1] - self.start)

    def confidences(self, temperatures: Mapping[int, float]) -> NDArray[np.float64]:
        """(texts, positions, exits) confidences at exit temperatures {layer: T_l}, each in 0.5..4.

        Raises:
            ValueError: a temperature outside that range.
        """
        columns = []
        for index, layer in enumerate(self.exit_layers):
            inverse = 1 / temperatures[layer]
            if not LOWEST <= inverse <= HIGHEST:
                raise SettingsError(
                    f"T={temperatures[layer]} at exit {layer}: a record holds temperatures {1 / HIGHEST}..{1 / LOWEST}"
                )
            partition = self.log_partition[:, :, index] @ _interpolation(inverse)
            columns.append(np.exp(-np.maximum(partition, 0)))  # a rounding error must not make it more than 1
        return np.stack(columns, axis=-1)

    def take(self, texts: Sequence[int] | NDArray[np.int64]) -> DenseRecord:
        """Only some texts, by index."""
        chosen = np.asarray(texts, dtype=np.int64)
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ("token_ids", "true_ids", *_EXIT_ARRAYS)}
        kinds = tuple(self.kinds[index] for index in chosen) if self.kinds else ()
        taken: dict[str, Any] = {name: None if array is None else array[chosen] for name, array in arrays.items()}
        return replace(self, kinds=kinds, **taken)

    @classmethod
    def joined(cls, records: Mapping[str, DenseRecord]) -> DenseRecord:
        """All texts of some records as one, labelled by their keys; what not all of them hold is left out.

        Raises:
            SettingsError: their texts differ in length or start, or their models in layers or exits.
        """
        shapes = {(one.token_ids.shape[1], one.start, one.exit_layers, one.num_layers) for one in records.values()}
        if len(shapes) != 1:
            raise SettingsError(
                f"{len(records)} records of {len(shapes)} shapes (tokens, start, exit layers, layers): "
                f"{sorted(shapes)}; join one or more of one shape"
            )
        parts = list(records.values())
        arrays: dict[str, Any] = {}
        for name in ("token_ids", "true_ids", *_EXIT_ARRAYS):
            columns = [getattr(part, name) for part in parts]
            arrays[name] = None if any(column is None for column in columns) else np.concatenate(columns)
        kinds = tuple(kind for kind, part in records.items() for _ in part.token_ids)
        return replace(parts[0], kinds=kinds, **arrays)

    def of_kind(self, kind: str) -> DenseRecord:
        """Only the texts of one kind.

        Raises:
            SettingsError: there are none.
        """
        found = [index for index, name in enumerate(self.kinds) if name == kind]
        if not found:
            known = ", ".join(dict.fromkeys(self.kinds)) or "none with a label"
            raise SettingsError(f"no texts of kind {kind!r} in the record: there are {known}")
        return self.take(found)

    def halves(self) -> tuple[DenseRecord, DenseRecord]:
        """Every other text of each kind, and the rest: one half to fit on, one to judge on.

        Raises:
            PromptError: a kind has fewer than two texts.
        """
        kinds = self.kinds or ("",) * len(self.token_ids)
        places: dict[str, list[int]] = {}
        for index, kind in enumerate(kinds):
            places.setdefault(kind, []).append(index)
        if any(len(indices) < 2 for indices in places.values()):
            raise PromptError("a record needs two texts of each kind to be halved: record more texts")
        first = sorted(index for indices in places.values() for index in indices[::2])
        second = sorted(index for indices in places.values() for index in indices[1::2])
        return self.take(first), self.take(second)

    def save(self, path: str | Path) -> Path:
        """Write one Parquet file, a row of it a position. Returns the path.

        Rounded, so that files stay small: the Chebyshev coefficients of F to multiples of 2**-16 (confidences are then
        off by less than 1e-4), logits to 2**-10, probabilities to 2**-16. Rows of the prompts keep their tokens alone.
        """
        texts, positions = self.token_ids.shape
        columns: dict[str, pa.Array] = {
            "text": pa.array(np.repeat(np.arange(texts, dtype=np.int32), positions)),
            "token_id": pa.array(self.token_ids.ravel()),
            "true_id": pa.array(self.true_ids.ravel()),
        }
        prompt = np.broadcast_to(np.arange(positions) < self.start, (texts, positions)).ravel()
        coefficients = self.log_partition @ _to_coefficients().T
        for index, layer in enumerate(self.exit_layers):
            columns[f"exit_id_{layer}"] = pa.array(self.exit_ids[..., index].ravel(), mask=prompt)
            for name, step in _ROUNDED.items():
                values = getattr(self, name)
                if values is not None:
                    columns[f"{name}_{layer}"] = _whole(values[..., index].ravel(), step, prompt)
            for node in range(NODES):
                values = coefficients[:, :, index, node].ravel()
                columns[f"partition_{layer}_{node}"] = _whole(values, _PARTITION_STEP, prompt)
        header = {
            "format_version": _FORMAT_VERSION,
            "exit_layers": list(self.exit_layers),
            "num_layers": self.num_layers,
            "start": self.start,
            "texts": texts,
            "kinds": list(self.kinds),
            "source": dict(self.source),
        }
        table = pa.table(columns).replace_schema_metadata({_METADATA: json.dumps(header)})
        pq.write_table(
            table, path, compression="zstd", compression_level=15, use_dictionary=False, write_statistics=False,
            column_encoding=dict.fromkeys(table.column_names, "BYTE_STREAM_SPLIT"),
        )  # fmt: skip
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> DenseRecord:
        """Read what `save` wrote; no model and no torch needed.

        Raises:
            LoadError: the file is missing, damaged, or not a dense record.
        """
        with reading(path, "dense record", "record.save()"):
            return _from_table(*read_table(path, "dense record", _METADATA, _FORMAT_VERSION))


_ROUNDED = {"top_logits": _LOGIT_STEP, "true_gaps": _LOGIT_STEP, "final_probabilities": _PROBABILITY_STEP}
_EXIT_ARRAYS = ("exit_ids", "log_partition", *_ROUNDED)


def _whole(values: NDArray[Any], step: float, prompt: NDArray[np.bool_]) -> pa.Array:
    """Multiples of `step` as whole numbers; empty in the prompt, and where a value is infinite."""
    empty = prompt | ~np.isfinite(values)
    return pa.array(np.where(empty, 0, np.rint(values / step)).astype(np.int32), mask=empty)


def _from_table(table: pa.Table, header: dict[str, Any]) -> DenseRecord:
    texts, start, layers = header["texts"], header["start"], tuple(header["exit_layers"])
    shape = (texts, len(table) // texts)

    def column(name: str, empty: float) -> NDArray[np.float64]:
        values = table[name].to_numpy().astype(np.float64)  # NaN where it is empty
        return np.where(np.isnan(values), empty, values).reshape(shape)

    def exits(name: str, step: float, empty: float) -> NDArray[np.float32] | None:
        if f"{name}_{layers[0]}" not in table.column_names:
            return None
        values = np.stack([column(f"{name}_{layer}", empty) for layer in layers], axis=-1) * step
        values[:, :start] = np.nan
        return values.astype(np.float32)

    coefficients = np.stack(
        [np.stack([column(f"partition_{layer}_{k}", np.nan) for k in range(NODES)], axis=-1) for layer in layers],
        axis=2,
    )
    exit_ids = np.stack([column(f"exit_id_{layer}", -1) for layer in layers], axis=-1)
    return DenseRecord(
        column("token_id", -1).astype(np.int32),
        column("true_id", -1).astype(np.int32),
        layers,
        header["num_layers"],
        exit_ids.astype(np.int32),
        (coefficients * _PARTITION_STEP @ _from_coefficients().T).astype(np.float32),
        start,
        exits("top_logits", _LOGIT_STEP, np.nan),
        exits("true_gaps", _LOGIT_STEP, -np.inf),
        exits("final_probabilities", _PROBABILITY_STEP, np.nan),
        tuple(header["kinds"]),
        header["source"],
    )


def record(
    model: Model,
    windows: Tensor,
    *,
    start: int = 0,
    batch_size: int = 8,
    kinds: Sequence[str] = (),
    source: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> DenseRecord:
    """Run the model once over (texts, positions) token ids and note what each exit says at each row.

    `selfdraft_viz.lab.recording` makes the windows, from given text or from the model's own continuations.

    Args:
        model: with the exit heads to be recorded.
        windows: (texts, positions) token ids.
        start: rows before this one belong to the prompt.
        batch_size: texts in a pass. Vocabulary logits are held for one exit and some rows at a time; what is kept takes
            about 150 bytes a row and exit.
        kinds: a label a text.
        source: kept in the record beside what is known of the model.
        progress: show a progress bar (tqdm.auto).
    """
    import torch

    from selfdraft_viz.lab.training import frozen_pass

    if kinds and len(kinds) != len(windows):
        raise SettingsError(f"{len(kinds)} kinds for {len(windows)} texts: give one a text, or none")
    layered, heads = model.layered, model.heads
    rows = max(1, _LOGITS_AT_ONCE // layered.vocab_size)
    parts: dict[str, list[Tensor]] = {name: [] for name in ("true_ids", *_EXIT_ARRAYS)}
    with torch.inference_mode(), tqdm(total=windows.numel(), desc="record", unit="row", disable=not progress) as bar:
        for batch in windows.split(batch_size):
            hidden_states, final = frozen_pass(layered, batch.to(model.device), heads.exit_layers)
            for first in range(0, len(final), rows):
                piece = slice(first, first + rows)
                some = {layer: states[piece] for layer, states in hidden_states.items()}
                for name, values in _record_rows(layered, model, some, final[piece]).items():
                    parts[name].append(values.cpu())
                bar.update(len(final[piece]))
    shape = tuple(windows.shape)
    arrays = {name: torch.cat(values).numpy() for name, values in parts.items()}
    arrays = {name: values.reshape(*shape, *values.shape[1:]) for name, values in arrays.items()}
    return DenseRecord(
        windows.numpy().astype(np.int32),
        arrays["true_ids"].astype(np.int32),
        heads.exit_layers,
        model.num_layers,
        arrays["exit_ids"].astype(np.int32),
        arrays["log_partition"],
        start,
        arrays["top_logits"],
        arrays["true_gaps"],
        arrays["final_probabilities"],
        tuple(kinds),
        {"model": model.name, "heads": heads.kind, **(source or {})},
    )


def _record_rows(
    layered: LayeredModel, model: Model, hidden_states: Mapping[int, Tensor], final: Tensor
) -> dict[str, Tensor]:
    """Some rows of a record, from (rows, width) hidden states by exit layer and after the final norm."""
    import torch

    heads = model.heads
    final_logits = layered.unembed(final).float()
    true_ids = final_logits.argmax(dim=-1)
    normalizer = final_logits.logsumexp(dim=-1)
    exits: dict[str, list[Tensor]] = {name: [] for name in _EXIT_ARRAYS}
    for layer in heads.exit_layers:
        logits = heads.logits(layered, layer, hidden_states[layer]).float()
        best, ids = logits.max(dim=-1)
        behind = logits - best[:, None]
        vocabulary = None if heads.vocabulary is None else heads.vocabulary.to(ids.device)
        ids = ids if vocabulary is None else vocabulary[ids]
        exits["exit_ids"].append(ids)
        exits["top_logits"].append(best)
        exits["true_gaps"].append(_at(behind, true_ids, vocabulary))
        exits["final_probabilities"].append((final_logits.gather(-1, ids[:, None])[:, 0] - normalizer).exp())
        sums = [(behind * inverse).exp_().sum(dim=-1) for inverse in _nodes().tolist()]
        exits["log_partition"].append(torch.stack(sums, dim=-1).log())
    return {"true_ids": true_ids, **{name: torch.stack(values, dim=1) for name, values in exits.items()}}


def _at(logits: Tensor, token_ids: Tensor, vocabulary: Tensor | None) -> Tensor:
    """(rows,) the logit of one token a row; -inf where it is not in the heads' vocabulary."""
    import torch

    if vocabulary is None:
        return logits.gather(-1, token_ids[:, None])[:, 0]
    column = torch.searchsorted(vocabulary, token_ids).clamp_(max=len(vocabulary) - 1)
    known = vocabulary[column] == token_ids
    return logits.gather(-1, column[:, None])[:, 0].masked_fill(~known, float("-inf"))


def _nodes() -> NDArray[np.float64]:
    """Inverse temperatures whose logarithms are the Chebyshev points of the second kind."""
    return np.exp(_log_nodes())


@cache
def _log_nodes() -> NDArray[np.float64]:
    low, high = float(np.log(LOWEST)), float(np.log(HIGHEST))
    return (low + high) / 2 + (high - low) / 2 * _places()


def _places() -> NDArray[np.float64]:
    """The Chebyshev points on -1..1."""
    return np.cos(np.pi * np.arange(NODES) / (NODES - 1))


@cache
def _from_coefficients() -> NDArray[np.float64]:
    """(NODES, NODES): values at the nodes = this @ Chebyshev coefficients."""
    return np.asarray(chebyshev.chebvander(_places(), NODES - 1), dtype=np.float64)


@cache
def _to_coefficients() -> NDArray[np.float64]:
    return np.asarray(np.linalg.inv(_from_coefficients()), dtype=np.float64)


def _interpolation(inverse: float) -> NDArray[np.float64]:
    """(NODES,) weights that give F(inverse) from F at the nodes: the barycentric formula."""
    distance = np.log(inverse) - _log_nodes()
    hit = np.isclose(distance, 0, atol=1e-12)
    if hit.any():
        return hit.astype(np.float64)
    weights = np.where(np.arange(NODES) % 2 == 0, 1.0, -1.0)
    weights[[0, -1]] /= 2
    terms = weights / distance
    return terms / terms.sum()

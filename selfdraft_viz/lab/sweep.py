"""Sweeps over models x prompts x settings: on this machine with joblib, or on a Dask cluster.

A piece of work is one model and one prompt: the model decodes the prompt ordinarily, a dense record is made of it and
stored once, and every setting is replayed on the record (and decoded for real, if asked for). Workers only compute;
the process that sweeps writes, each piece in one stroke when it is whole. So a sweep that was stopped, or whose workers
died, goes on with what is missing, and nothing is lost or counted twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm.auto import tqdm

from selfdraft_viz.errors import LoadError, SelfDraftError, SettingsError
from selfdraft_viz.lab.record import DenseRecord
from selfdraft_viz.lab.replay import replay
from selfdraft_viz.lab.texts import Prompt
from selfdraft_viz.settings import Settings

if TYPE_CHECKING:
    from distributed import Client

    from selfdraft_viz.model import Model


@dataclass(frozen=True)
class ModelSpec:
    """Which model a worker loads: the arguments of `selfdraft_viz.load` that can be sent to another machine. `name`
    None is the embedded model; a path must be there on every machine."""

    name: str | None = None
    device: str = "auto"
    dtype: str | None = None
    exit_layers: tuple[int, ...] | None = None
    heads: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        parts = [
            self.name or "embedded model",
            *(str(part) for part in (self.heads, self.dtype, self.revision) if part),
        ]
        if self.exit_layers is not None:
            parts.append("exits " + " ".join(map(str, self.exit_layers)))
        return ", ".join(parts)

    def load(self) -> Model:
        from selfdraft_viz.model import load

        return load(
            self.name,
            device=self.device,
            dtype=self.dtype,
            exit_layers=self.exit_layers,
            heads=self.heads,
            revision=self.revision,
        )


@dataclass(frozen=True)
class Piece:
    """One model and one prompt, and the settings that are still missing."""

    spec: ModelSpec
    prompt: str | tuple[int, ...]
    new_tokens: int
    measure: bool
    settings: tuple[tuple[str, dict[str, Any]], ...]
    """(fingerprint, `Settings.to_dict()`) pairs."""

    @property
    def key(self) -> str:
        """Of the record: the same model, prompt and length have the same one, whatever the settings."""
        return fingerprint([asdict(self.spec), self.prompt, self.new_tokens])


@dataclass(frozen=True)
class Done:
    """What a worker sends back."""

    key: str
    record: bytes | None
    """A Parquet file; None where there was one already."""
    rows: dict[str, dict[str, Any]]
    """By fingerprint of the settings."""


def sweep(
    models: Sequence[ModelSpec],
    prompts: Sequence[Prompt],
    settings: Mapping[str, Settings],
    folder: str | Path,
    *,
    new_tokens: int = 64,
    measure: bool = False,
    client: Client | None = None,
    workers: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Every model on every prompt under every setting; what `folder` holds already is not done again.

    Args:
        models: to be loaded by the workers, each of which keeps the last one that it loaded.
        prompts: text, or token ids.
        settings: by name; the names are of this call, the results are kept by what the settings are.
        folder: for `records/` and `results/`. One sweep at a time may write to it.
        new_tokens: decoded of each prompt; end-of-sequence tokens end nothing.
        measure: also decode under each setting for real, beside ordinary decoding. Times are only worth something
            where a worker has its machine to itself.
        client: a `distributed.Client`; its scheduler sends the work of a worker that died to another. None = joblib.
        workers: processes of joblib, where there is no client.
        progress: show a progress bar.

    Returns:
        One row a model, prompt and setting: `model`, `prompt` (its place in `prompts`), `kind`, `settings` (the name),
        the counts of `Replay`, and with `measure`: `seconds_per_token`, `plain_seconds_per_token`, `equal`.

    Raises:
        SettingsError: nothing to do, or a setting cannot be saved. SelfDraftError: pieces failed; the message names the
        first, all others are stored, and calling again does only what failed.
    """
    if not (models and prompts and settings) or new_tokens < 2 or workers < 1:
        raise SettingsError(
            f"{len(models)} models, {len(prompts)} prompts, {len(settings)} settings, new_tokens={new_tokens}, "
            f"workers={workers}: give at least one of each, and 2 tokens"
        )
    store = Store(Path(folder))
    plain = {name: one.to_dict() for name, one in settings.items()}
    prints = {name: fingerprint([data, measure]) for name, data in plain.items()}
    texts = [prompt.text if isinstance(prompt.text, str) else tuple(prompt.text) for prompt in prompts]
    wanted = [
        Piece(spec, text, new_tokens, measure, tuple((prints[name], data) for name, data in plain.items()))
        for spec in models
        for text in texts
    ]
    missing = {piece.key: store.missing(piece) for piece in wanted}
    open_pieces = [piece for piece in missing.values() if piece.settings]
    failures: list[str] = []
    with tqdm(total=len(missing), desc="sweep", unit="record", disable=not progress) as bar:
        bar.update(len(missing) - len(open_pieces))
        made = _on_cluster(client, open_pieces, store) if client is not None else _here(workers, open_pieces, store)
        for result in made:
            if isinstance(result, Done):
                store.write(result)
            else:
                failures.append(result)
            bar.update()
    if failures:
        raise SelfDraftError(f"{len(failures)} of {len(open_pieces)} pieces failed; the first: {failures[0]}")
    rows = []
    for piece, (spec, index) in zip(wanted, [(m, i) for m in models for i in range(len(prompts))], strict=True):
        results = store.results(piece.key)
        for name, mark in prints.items():
            where = {"model": str(spec), "prompt": index, "kind": prompts[index].kind, "settings": name}
            rows.append({**where, **results[mark]})
    return pd.DataFrame(rows)


class Store:
    """The folder of a sweep: `records/KEY.parquet` and `results/KEY.json`, written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.records, self.results_folder = folder / "records", folder / "results"
        for one in (self.records, self.results_folder):
            one.mkdir(parents=True, exist_ok=True)

    def missing(self, piece: Piece) -> Piece:
        there = self.results(piece.key)
        settings = tuple(pair for pair in piece.settings if pair[0] not in there)
        return Piece(piece.spec, piece.prompt, piece.new_tokens, piece.measure, settings)

    def results(self, key: str) -> dict[str, dict[str, Any]]:
        path = self.results_folder / f"{key}.json"
        if not path.is_file():
            return {}
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise LoadError(f"{path} is damaged: {error}; remove it, and its piece is done again") from error

    def record(self, key: str) -> bytes | None:
        path = self.records / f"{key}.parquet"
        return path.read_bytes() if path.is_file() else None

    def write(self, done: Done) -> None:
        if done.record is not None:
            _write_whole(self.records / f"{done.key}.parquet", done.record)
        rows = {**self.results(done.key), **done.rows}
        _write_whole(self.results_folder / f"{done.key}.json", (json.dumps(rows, indent=1) + "\n").encode())


def work(piece: Piece, stored: bytes | None) -> Done:
    """Do one piece: what a worker runs. `stored` is its record, where there is one already."""
    model = None
    if stored is None or piece.measure:
        model = _loaded(piece.spec)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.parquet"
        made = stored
        if made is None:
            from selfdraft_viz.lab.recording import record_trace

            assert model is not None
            plain = model.generate_plain(
                piece.prompt, max_new_tokens=piece.new_tokens, stop_at_end=False, detail="tokens"
            )
            made = record_trace(model, plain).save(path).read_bytes()
        path.write_bytes(made)
        record = DenseRecord.load(path)  # as it is stored, so that a sweep that goes on finds the same
    rows: dict[str, dict[str, Any]] = {}
    for mark, data in piece.settings:
        settings = Settings.from_dict(data)
        rows[mark] = asdict(replay(record, settings))
        if model is not None and piece.measure:
            from selfdraft_viz.lab.paired import measure_paired

            (run,) = measure_paired(model, record, {"": settings}, repeats=1).to_dict("records")
            rows[mark] |= {
                "seconds_per_token": float(run["seconds"]),
                "plain_seconds_per_token": float(run["plain_seconds"]),
                "equal": bool(run["equal"]),
            }
    return Done(piece.key, None if stored is not None else made, rows)


def _attempt(piece: Piece, stored: bytes | None) -> Done | str:
    """A piece that cannot be done ends itself, not the sweep."""
    try:
        return work(piece, stored)
    except (SelfDraftError, OSError, RuntimeError) as error:
        return f"{piece.spec} on {str(piece.prompt)[:60]!r}: {error}"


def _here(workers: int, pieces: Sequence[Piece], store: Store) -> Iterator[Done | str]:
    from joblib import Parallel, delayed

    jobs = (delayed(_attempt)(piece, store.record(piece.key)) for piece in pieces)
    yield from Parallel(n_jobs=workers, return_as="generator_unordered")(jobs)


def _on_cluster(client: Client, pieces: Sequence[Piece], store: Store) -> Iterator[Done | str]:
    from distributed import as_completed

    futures = {
        client.submit(_attempt, piece, store.record(piece.key), pure=False, retries=3): piece for piece in pieces
    }
    for future in as_completed(list(futures)):
        piece = futures.pop(future)
        if future.status == "finished":
            yield future.result()
        else:
            yield f"{piece.spec} on {str(piece.prompt)[:60]!r}: {future.exception()}"
        future.release()


@lru_cache(maxsize=1)
def _loaded(spec: ModelSpec) -> Model:
    return spec.load()


def fingerprint(data: Any) -> str:
    """A name for plain data: a hash of it as JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:24]


def _write_whole(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        file.write(content)
    os.replace(file.name, path)  # noqa: PTH105 - it replaces what is there, on every system

"""What a decode leaves behind: tables that agree with the events and with each other, saved and read back."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import strategies
import tiny
from hypothesis import assume, example, given
from hypothesis import strategies as st
from strategies import examples

import selfdraft_viz as sv
from selfdraft_viz.events import Committed, DraftingStopped, ExitCheck, LayersRan, Verified
from selfdraft_viz.text import PLACEHOLDER
from selfdraft_viz.trace import COLUMNS

TABLES = tuple(COLUMNS)


@examples(30)
@given(decode=strategies.decodes(), top_tokens=st.integers(0, 3))
def test_tables_hold_what_the_events_said(decode: strategies.Decode, top_tokens: int) -> None:
    """Breaks when a table drops, doubles or shifts a row, or a column holds another field."""
    recorder = decode.model.recorder()
    events = decode.stream(top_tokens=top_tokens)
    for event in events:
        recorder.add(event)
    trace = recorder.trace()

    def of(kind: type) -> list:
        return [event for event in events if isinstance(event, kind)]

    new = trace.tokens.iloc[len(decode.prompt) :]
    assert trace.prompt_ids == decode.prompt
    assert trace.tokens["position"].tolist() == list(range(len(trace.tokens)))
    for name in ("position", "token_id", "kind", "round", "exit_depth", "confidence", "seconds"):
        assert same(new[name], of(Committed), name)
    for name in ("round", "position", "layer", "token_id", "confidence", "unannealed_confidence", "exit_temperature"):
        assert same(trace.exit_checks[name], of(ExitCheck), name)
    for name in ("threshold", "exited", "settings_version", "seconds"):
        assert same(trace.exit_checks[name], of(ExitCheck), name)
    assert trace.exit_checks["top_token_ids"].tolist() == [
        [guess.token_id for guess in event.top_tokens] for event in of(ExitCheck)
    ]
    for name in ("round", "first_position", "accepted", "stop_reason", "exit_checks", "seconds"):
        assert same(trace.rounds[name], of(Verified), name)
    for name in (name for name in COLUMNS["rounds"] if name.endswith("passes")):
        assert same(trace.rounds[name], of(Verified), name)
    assert trace.drafts["token_id"].tolist() == [t for event in of(DraftingStopped) for t in event.draft_ids]
    assert trace.drafts["exit_depth"].tolist() == [d for event in of(DraftingStopped) for d in event.exit_depths]
    assert trace.layer_passes["layer"].tolist() == [
        layer for event in of(LayersRan) for layer in range(event.first_layer, event.last_layer + 1)
    ]
    assert trace.settings_history == (decode.settings,)
    assert trace.settings == decode.settings


def same(column: pd.Series, events: list, name: str) -> bool:
    """Whether a column holds a field of the events; a missing value is None there and NA here."""
    told = [getattr(event, name) for event in events]
    return [None if pd.isna(value) else value for value in column] == told


@examples(30)
@given(decode=strategies.decodes())
def test_tables_agree_with_each_other_and_with_the_text(decode: strategies.Decode) -> None:
    """Breaks when two plots of one decode contradict each other."""
    trace = decode.selfdraft()
    num_layers = trace.num_layers
    new = trace.tokens[trace.tokens["kind"] != "prompt"]
    assert "".join(new["text"]) == trace.text
    assert new["token_id"].tolist() == trace.token_ids
    assert len(trace.token_ids) == decode.max_new_tokens

    rounds = trace.rounds.set_index("round")
    by_round = new.groupby("round")
    assert by_round.size().tolist() == rounds["committed"].tolist()
    assert by_round["position"].min().tolist() == rounds["first_position"].tolist()
    assert by_round["kind"].last().tolist() == rounds["ended_with"].tolist()
    assert Counter(new["kind"])["accepted"] == rounds["accepted"].sum()
    assert (rounds["committed"] >= 1).all()
    assert (rounds["committed"] <= rounds["drafted"] + (rounds["stop_reason"] == "hard token")).all()

    drafts = trace.drafts
    for number, row in rounds.iterrows():
        of_round = drafts[drafts["round"] == number]
        assert len(of_round) == row["drafted"]
        outcomes = ["accepted"] * row["accepted"]
        if row["accepted"] < row["drafted"]:
            outcomes += ["rejected"] + ["dropped"] * (row["drafted"] - row["accepted"] - 1)
        assert of_round["outcome"].tolist() == outcomes
        positions = range(row["first_position"], row["first_position"] + row["drafted"])
        assert of_round["position"].tolist() == list(positions)
    accepted = drafts[drafts["outcome"] == "accepted"]
    committed = new[new["kind"] == "accepted"]
    for name in ("position", "token_id", "exit_depth", "confidence", "text"):
        assert accepted[name].tolist() == committed[name].tolist()

    checks = trace.exit_checks
    exited = checks[checks["exited"]]
    assert (exited["position"] + 1).tolist() == drafts["position"].tolist()
    for name in ("round", "token_id", "confidence", "text"):
        assert exited[name].tolist() == drafts[name].tolist()
    assert exited["layer"].tolist() == drafts["exit_depth"].tolist()
    assert checks.groupby("round").size().reindex(rounds.index, fill_value=0).tolist() == rounds["exit_checks"].tolist()

    passes = trace.layer_passes[trace.layer_passes["round"].notna()]
    for phase in ("draft", "verification"):
        counts = passes[passes["phase"] == phase].groupby("round").size().reindex(rounds.index, fill_value=0)
        assert counts.tolist() == rounds[f"{phase}_layer_passes"].tolist()
    row_passes = rounds[["draft_row_passes", "catch_up_row_passes", "verification_row_passes"]].to_numpy().sum()
    assert passes["rows"].sum() == row_passes
    assert passes["catch_up_rows"].sum() == rounds["catch_up_row_passes"].sum()
    # every pending row of a round, kept or thrown away, runs through every layer exactly once
    pending = rounds["drafted"] + (rounds["stop_reason"] == "hard token")
    assert row_passes == pending.sum() * num_layers


@examples(25)
@given(decode=strategies.decodes())
def test_the_summary_adds_up(decode: strategies.Decode) -> None:
    """Breaks when a figure is not what its definition says."""
    trace, plain = decode.selfdraft(), decode.plain()
    summary, ordinary = trace.summary(), plain.summary()
    rounds, decoded = trace.rounds, len(trace.token_ids) - 1
    assert summary["new_tokens"] == ordinary["new_tokens"] == decode.max_new_tokens
    assert summary["prompt_tokens"] == len(decode.prompt)
    assert rounds["committed"].sum() == decoded
    if decoded:
        assert ordinary["layer_passes_per_token"] == ordinary["row_passes_per_token"] == trace.num_layers
        assert summary["layer_passes_per_token"] == (trace.layer_passes["round"].notna()).sum() / decoded
        assert summary["row_passes_per_token"] >= trace.num_layers
        assert summary["tokens_per_round"] == decoded / len(rounds) >= 1
        assert summary["exit_checks_per_token"] == len(trace.exit_checks) / decoded
        assert summary["tokens_per_second"] == pytest.approx(1 / summary["seconds_per_token"])
    else:
        assert summary["layer_passes_per_token"] is summary["tokens_per_round"] is summary["seconds_per_token"] is None
        assert ordinary["layer_passes_per_token"] is ordinary["seconds_per_token"] is None
    if len(trace.drafts):
        assert 0 <= summary["acceptance_rate"] == (trace.drafts["outcome"] == "accepted").mean() <= 1
        assert summary["mean_exit_depth"] == pytest.approx(trace.drafts["exit_depth"].astype(float).mean())
        assert min(trace.exit_layers) <= summary["mean_exit_depth"] <= max(trace.exit_layers)
    else:
        assert summary["acceptance_rate"] is summary["mean_exit_depth"] is None
    json.dumps(summary)


def equal(ours: sv.Trace, theirs: sv.Trace) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(ours, name), getattr(theirs, name))
    for name in ("text", "method", "num_layers", "exit_layers", "settings_history", "refusals", "finish_reason"):
        assert getattr(ours, name) == getattr(theirs, name)
    for name in ("max_new_tokens", "sampling", "model", "environment", "token_ids", "prompt_ids"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.summary() == theirs.summary()


@examples(20)
@given(
    decode=strategies.decodes(), plain=st.booleans(), top_tokens=st.integers(0, 3), after=st.none() | st.integers(1, 80)
)
def test_a_saved_trace_comes_back_as_it_was(
    decode: strategies.Decode,
    plain: bool,
    top_tokens: int,
    after: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Breaks when a column, a dtype, a setting or a figure changes on the way through a file; unfinished decodes, with
    their empty tables, included."""
    recorder = decode.model.recorder()
    stream = (
        decode.model.stream_plain(decode.prompt, **decode.options)
        if plain
        else decode.model.stream(decode.prompt, decode.settings, top_tokens=top_tokens, **decode.options)
    )
    for _, event in zip(range(10_000 if after is None else after), stream, strict=False):
        recorder.add(event)
    trace = recorder.trace()
    path = tmp_path_factory.mktemp("traces") / "run.parquet"
    assert trace.save(path) == path
    equal(sv.Trace.load(path), trace)
    equal(sv.Trace.load(str(path)), trace)


def test_a_trace_with_text_comes_back_as_it_was(embedded: sv.Model, tmp_path: Path) -> None:
    """Breaks when texts, characters split between tokens among them, do not survive a file."""
    trace = embedded.generate("a 🚀 b", sv.Settings(threshold=0.3), max_new_tokens=12, top_tokens=3)
    loaded = sv.Trace.load(trace.save(tmp_path / "run.parquet"))
    equal(loaded, trace)
    new = loaded.tokens.loc[loaded.tokens["kind"] != "prompt", "text"]
    assert "".join(new).replace(PLACEHOLDER, "") == loaded.text.replace(PLACEHOLDER, "")
    assert PLACEHOLDER in loaded.tokens["text"].tolist()
    assert "🚀" in loaded.tokens["text"].tolist()
    assert all(len(texts) == 3 for texts in loaded.exit_checks["top_texts"])


def test_a_trace_knows_its_model_versions_and_hardware() -> None:
    """Breaks when a figure can no longer be traced back to what it was measured on."""
    trace = tiny.load("llama", [2]).generate([1], max_new_tokens=2)
    assert {"id", "revision", "family", "num_layers", "heads", "device", "dtype"} <= set(trace.model)
    assert (trace.model["family"], trace.model["dtype"], trace.model["heads"]) == ("llama", "float64", "logit lens")
    assert {"selfdraft_viz", "python", "torch", "transformers", "platform", "processor", "threads"} <= set(
        trace.environment
    )


@examples(15)
@given(decode=strategies.decodes(), data=st.data())
def test_each_check_is_listed_with_the_settings_that_were_in_force_at_it(
    decode: strategies.Decode, data: st.DataObject
) -> None:
    """Breaks when the table gives all checks the last settings of a decode in which they changed."""
    model = decode.model
    variants = data.draw(st.lists(strategies.settings_for(model.exit_layers, model.num_layers), min_size=1, max_size=4))
    reads = itertools.count()
    trace = model.generate(decode.prompt, lambda: variants[next(reads) // 7 % len(variants)], **decode.options)
    for check in trace.exit_checks.itertuples():
        in_force = trace.settings_history[check.settings_version]
        assert check.threshold == in_force.threshold
        assert check.exit_temperature == in_force.schedule.temperature(check.layer, model.num_layers)
        for name in ("max_depth", "max_width"):
            told = getattr(check, name)
            assert (None if pd.isna(told) else told) == getattr(in_force, name)


def test_every_column_is_documented_and_every_documented_column_is_there() -> None:
    """Breaks when a table and its documentation part."""
    trace = tiny.load("llama", [2]).generate([1], max_new_tokens=6, top_tokens=2)
    for name, columns in COLUMNS.items():
        table = getattr(trace, name)
        assert list(table.columns) == list(columns)
        assert all(columns.values())
        empty = getattr(tiny.load("llama").generate_plain([1], max_new_tokens=1, detail="tokens"), name)
        assert empty.dtypes.to_dict() == table.dtypes.to_dict(), "a dtype depends on what happens to be in a table"


class Halving(sv.Schedule):
    """A schedule of one's own, which no file can name."""

    def temperature(self, layer: int, num_layers: int) -> float:
        return 4.0 / 2**layer


def test_a_schedule_of_ones_own_is_saved_as_the_temperatures_it_gave(tmp_path: Path) -> None:
    """Breaks when a finished decode cannot be saved any more because of its schedule."""
    model = tiny.load("llama", [1, 2, 3])
    trace = model.generate([1, 2], sv.Settings(schedule=Halving(), threshold=0.2, max_depth=2), max_new_tokens=8)
    loaded = sv.Trace.load(trace.save(tmp_path / "run.parquet"))
    assert loaded.settings.schedule == sv.PerLayerTemperature({1: 2.0, 2: 1.0})
    assert loaded.settings.max_depth == 2
    pd.testing.assert_frame_equal(loaded.exit_checks, trace.exit_checks)
    again = model.generate([1, 2], loaded.settings, max_new_tokens=8)
    assert again.exit_checks["confidence"].tolist() == trace.exit_checks["confidence"].tolist()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trace = tiny.load("llama", [1, 2]).generate([1, 2, 3], sv.Settings(threshold=0.3), max_new_tokens=10)
    return trace.save(tmp_path_factory.mktemp("saved") / "run.parquet")


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    """Breaks when half a file gives half a trace, or an error that nobody expects."""
    whole = saved.read_bytes()
    truncated = saved.with_name("truncated.parquet")
    truncated.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(sv.LoadError, match=r"truncated\.parquet"):
        sv.Trace.load(truncated)


@examples(200)
@given(where=st.floats(0, 1), flip=st.integers(1, 255))
@example(where=0.0, flip=1)
@example(where=1.0, flip=1)
def test_a_damaged_byte_gives_a_trace_or_a_load_error(saved: Path, where: float, flip: int) -> None:
    """Breaks when damage comes out as an error of pyarrow's, json's or pandas' own."""
    content = bytearray(saved.read_bytes())
    content[int(where * (len(content) - 1))] ^= flip
    damaged = saved.with_name("damaged.parquet")
    damaged.write_bytes(content)
    with contextlib.suppress(sv.LoadError):  # and no other
        assert isinstance(sv.Trace.load(damaged), sv.Trace)


def rewritten(saved: Path, path: Path, **changes: object) -> Path:
    """The saved trace with another header; None takes a field out."""
    table = pq.read_table(saved)
    header = json.loads(table.schema.metadata[b"selfdraft_viz"])
    header = {name: value for name, value in {**header, **changes}.items() if value is not None}
    pq.write_table(table.replace_schema_metadata({b"selfdraft_viz": json.dumps(header).encode()}), path)
    return path


def test_files_that_are_no_traces_are_refused_in_words(saved: Path, tmp_path: Path) -> None:
    """Breaks when a wrong file gives a stack trace and no remedy."""
    with pytest.raises(sv.LoadError, match=r"there is no file .*none\.parquet: give one that trace\.save\(\) wrote"):
        sv.Trace.load(tmp_path / "none.parquet")
    with pytest.raises(sv.LoadError, match="there is no file"):
        sv.Trace.load(tmp_path)
    (tmp_path / "text.parquet").write_text("no parquet at all")
    with pytest.raises(sv.LoadError, match="not a readable Parquet file"):
        sv.Trace.load(tmp_path / "text.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(sv.LoadError, match="no trace of selfdraft_viz"):
        sv.Trace.load(tmp_path / "other.parquet")
    with pytest.raises(sv.LoadError, match="another format version: update selfdraft_viz"):
        sv.Trace.load(rewritten(saved, tmp_path / "newer.parquet", format_version=99))
    for changes in ({"num_layers": None}, {"settings_history": [{"threshold": 7}]}, {"exit_layers": 3}, {"more": 1}):
        with pytest.raises(sv.LoadError, match="damaged trace"):
            sv.Trace.load(rewritten(saved, tmp_path / "header.parquet", **changes))


@examples(20)
@given(decode=strategies.decodes(), after=st.integers(1, 60))
def test_a_decode_that_fails_leaves_the_trace_so_far(decode: strategies.Decode, after: int) -> None:
    """Breaks when an interrupted decode loses what it had, or leaves the model unusable."""
    calls = 0

    def interrupted() -> sv.Settings:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        return decode.settings

    plain = decode.plain().token_ids
    try:
        decode.model.generate(decode.prompt, interrupted, **decode.options)
    except KeyboardInterrupt as stop:
        trace = stop.trace
    else:
        assume(False)
    assert trace.finish_reason is None
    assert trace.token_ids == plain[: len(trace.token_ids)]
    assert trace.settings_history == (decode.settings,)
    assert trace.summary()["new_tokens"] == len(trace.token_ids)
    assert decode.selfdraft().token_ids == plain


def test_a_recorder_without_events_says_what_it_needs() -> None:
    """Breaks when an empty recorder fails with an error about something else."""
    with pytest.raises(ValueError, match="nothing has been decoded yet"):
        sv.TraceRecorder().trace()

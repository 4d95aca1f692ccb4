"""Dense records: what they keep is what decoding computes, within their stated error, and files give it back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import synthetic
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

import selfdraft_viz as sv
from selfdraft_viz.lab import record as record_module
from selfdraft_viz.lab.record import DenseRecord, record
from selfdraft_viz.lab.recording import (
    SHIPPED_HEADS,
    SHIPPED_TEXTS,
    record_continuations,
    record_text,
    record_trace,
    shipped_record,
)
from selfdraft_viz.lab.training import frozen_pass

IN_MEMORY, SAVED = 3e-5, 1e-4  # stated errors of a confidence
TEMPERATURES = np.exp(np.linspace(np.log(0.5), np.log(4.0), 25))


@given(st.integers(0, 1000), st.sampled_from([0.3, 1.0, 4.0, 15.0, 40.0]), st.integers(1, 12), st.integers(2, 5000))
def test_the_hardest_logits_stay_within_the_error(seed, gap, peaks, tokens):
    """A few good tokens, a gap, and thousands of bad ones that take over as the temperature rises: of all shapes this
    bends the log-partition most sharply."""
    rng = np.random.default_rng(seed)
    logits = np.concatenate([-rng.exponential(size=peaks), -gap - 0.3 * rng.exponential(size=tokens)])
    behind = logits - logits.max()
    nodes = np.array([np.log(np.exp(behind * b).sum()) for b in record_module._nodes()])
    for temperature in TEMPERATURES:
        exact = 1 / np.exp(behind / temperature).sum()
        assert np.exp(-nodes @ record_module._interpolation(1 / temperature)) == pytest.approx(exact, abs=IN_MEMORY)


@pytest.mark.parametrize("heads", ["logit lens", "trained"])
def test_a_record_of_the_embedded_model_holds_its_logits(embedded, heads):
    """Confidences at every temperature, logits and probabilities, against those of the logits themselves."""
    model = embedded if heads == "trained" else embedded.with_heads("logit lens")
    token_ids = torch.tensor([model.encode("Once upon a time there was a little girl. def main(argv): return 0")])
    dense = record(model, token_ids)
    with torch.inference_mode():
        hidden_states, final = frozen_pass(model.layered, token_ids, model.exit_layers)
        final_probabilities = model.layered.unembed(final).softmax(-1)
        true_ids = final_probabilities.argmax(-1)
        for index, layer in enumerate(model.exit_layers):
            logits = model.heads.logits(model.layered, layer, hidden_states[layer])
            for temperature in TEMPERATURES.tolist():
                exact = (logits.double() / temperature).softmax(-1).amax(-1)
                ours = dense.confidences(dict.fromkeys(model.exit_layers, temperature))[0, :, index]
                np.testing.assert_allclose(ours, exact.numpy(), atol=IN_MEMORY)
            whole = model.heads.whole(logits, model.layered.vocab_size)
            ids = whole.argmax(-1)
            np.testing.assert_array_equal(dense.exit_ids[0, :, index], ids.numpy())
            np.testing.assert_allclose(dense.top_logits[0, :, index], whole.amax(-1).numpy(), atol=1e-5)
            gaps = whole.gather(-1, true_ids[:, None])[:, 0] - whole.amax(-1)
            np.testing.assert_allclose(dense.true_gaps[0, :, index], gaps.numpy(), atol=1e-5)
            expected = final_probabilities.gather(-1, ids[:, None])[:, 0]
            np.testing.assert_allclose(dense.final_probabilities[0, :, index], expected.numpy(), atol=1e-5)
    np.testing.assert_array_equal(dense.true_ids[0], true_ids.numpy())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_record_of_a_decode_agrees_with_its_exit_checks(family):
    """Token by token, for every row that the decode checked on the committed path."""
    model = tiny.with_random_heads(tiny.load(family, exit_layers=[1, 2, 3], seed=1))
    settings = sv.Settings(sv.LinearAnnealing(1.2), threshold=0.3, max_width=3)
    trace = model.generate([7, 7, 1], settings, max_new_tokens=30)
    dense = record_trace(model, trace)
    assert dense.start == 3
    assert dense.true_ids[0, 2:].tolist() == trace.token_ids
    confidences = dense.confidences(settings.schedule.temperatures(dense.exit_layers, model.num_layers))
    first = trace.rounds.set_index("round")
    checked = 0
    for check in trace.exit_checks.itertuples():
        of_round = first.loc[check.round]
        if check.position > of_round["first_position"] - 1 + of_round["accepted"]:
            continue  # after a wrong draft: no row of the text
        index = dense.exit_layers.index(check.layer)
        assert confidences[0, check.position, index] == pytest.approx(check.confidence, abs=SAVED)
        assert dense.exit_ids[0, check.position, index] == check.token_id
        checked += 1
    assert checked > 10
    for draft in trace.drafts.itertuples():
        if draft.outcome != "dropped":
            index = dense.exit_layers.index(draft.exit_depth)
            assert dense.agrees[0, draft.position - 1, index] == (draft.outcome == "accepted")


@pytest.mark.parametrize("vocabulary", [None, 40])
def test_a_saved_record_comes_back(tmp_path, vocabulary):
    model = sv.load(tiny.base("llama", 3, torch.float32), exit_layers=[1, 3])
    if vocabulary is not None:
        model = model.with_heads(sv.ExitHeads([1, 3], vocabulary=torch.arange(0, 80, 2)))
    dense = record_continuations(
        model, {"a": [[1, 2, 3, 4] * 3], "b": [[5, 6, 7, 8] * 3]}, prompt_tokens=4, max_new_tokens=9, progress=False
    )
    again = DenseRecord.load(dense.save(tmp_path / "record.parquet"))
    assert (again.exit_layers, again.num_layers, again.start) == ((1, 3), 5, 4)
    assert again.kinds == dense.kinds == ("a",) * 3 + ("b",) * 3
    assert again.source == {"model": model.name, "heads": "logit lens", "text": "own"}
    assert dense.token_ids.shape == (6, 12)
    after = slice(4, None)
    for name in ("token_ids", "true_ids"):
        np.testing.assert_array_equal(getattr(again, name), getattr(dense, name))
    np.testing.assert_array_equal(again.exit_ids[:, after], dense.exit_ids[:, after])
    for name, error in {"top_logits": 1e-3, "true_gaps": 1e-3, "final_probabilities": 1e-4}.items():
        np.testing.assert_allclose(getattr(again, name)[:, after], getattr(dense, name)[:, after], atol=error)
    assert np.isinf(dense.true_gaps).any() == (vocabulary is not None)
    for temperature in TEMPERATURES.tolist():
        temperatures = dict.fromkeys(dense.exit_layers, temperature)
        ours, theirs = dense.confidences(temperatures), again.confidences(temperatures)
        np.testing.assert_allclose(theirs[:, after], ours[:, after], atol=SAVED)
    assert np.isnan(again.confidences({1: 1.0, 3: 1.0})[:, :4]).all()
    assert not again.agrees[:, :4].any()


@pytest.mark.parametrize("heads", SHIPPED_HEADS)
@pytest.mark.parametrize("text", SHIPPED_TEXTS)
def test_shipped_records_open(heads, text):
    dense = shipped_record(heads, text)
    assert set(dense.kinds) == {"stories", "tales", "python"}
    assert dense.rows > 2500
    assert dense.num_layers == 16
    confidences = dense.confidences(dict.fromkeys(dense.exit_layers, 1.0))[:, dense.start :]
    assert ((confidences > 0) & (confidences <= 1 + SAVED)).all()


@pytest.mark.parametrize("heads", ["logit lens"])
@pytest.mark.parametrize("text", SHIPPED_TEXTS)
def test_a_shipped_record_is_what_the_embedded_model_gives(embedded, heads, text):
    """Breaks when the model or the record is changed without the other."""
    dense = shipped_record(heads, text).take([0, 20])
    model = embedded.with_heads(sv.ExitHeads(dense.exit_layers))
    made = record(model, torch.tensor(dense.token_ids, dtype=torch.int64), start=dense.start)
    after = slice(dense.start, None)
    same = made.true_ids[:, after] == dense.true_ids[:, after]
    assert same.mean() > 0.99  # a near-tie can fall either way on another machine
    temperatures = sv.LinearAnnealing(1.0).temperatures(dense.exit_layers, 16)
    np.testing.assert_allclose(
        made.confidences(temperatures)[:, after], dense.confidences(temperatures)[:, after], atol=1e-3
    )


def test_damaged_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(sv.LoadError, match="no file"):
        DenseRecord.load(tmp_path / "nothing.parquet")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(sv.LoadError, match="not a readable"):
        DenseRecord.load(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(sv.LoadError, match="no dense record"):
        DenseRecord.load(tmp_path / "other.parquet")
    whole = pq.read_table(synthetic.record([1.0], texts=2, positions=3).save(tmp_path / "whole.parquet"))
    pq.write_table(whole.drop_columns(["true_id"]), tmp_path / "part.parquet")
    with pytest.raises(sv.LoadError, match="damaged"):
        DenseRecord.load(tmp_path / "part.parquet")


def test_halves_hold_every_text_once():
    dense = dataclasses.replace(synthetic.record([1.0], texts=7), kinds=("a",) * 3 + ("b",) * 4)
    one, other = dense.halves()
    assert (one.kinds, other.kinds) == (("a", "a", "b", "b"), ("a", "b", "b"))
    joined = np.concatenate([one.true_ids, other.true_ids])
    assert sorted(map(tuple, joined)) == sorted(map(tuple, dense.true_ids))
    assert dense.of_kind("b").kinds == ("b",) * 4
    with pytest.raises(sv.SettingsError, match="there are a, b"):
        dense.of_kind("c")
    with pytest.raises(sv.PromptError, match="two texts"):
        dense.take([0, 3]).halves()


def test_batches_do_not_change_a_record():
    model = sv.load(tiny.base("gpt2", 0), exit_layers=[1, 2])
    windows = torch.randint(0, tiny.VOCABULARY, (5, 12), generator=torch.Generator().manual_seed(0))
    whole = record(model, windows, batch_size=5)
    apart = record(model, windows, batch_size=1)
    np.testing.assert_array_equal(whole.exit_ids, apart.exit_ids)
    np.testing.assert_allclose(whole.log_partition, apart.log_partition, atol=1e-5)


def test_vocabulary_logits_are_held_for_some_rows_at_a_time(monkeypatch):
    """Breaks when a long text on a large vocabulary would need all its logits at once."""
    model = sv.load(tiny.base("llama", 0), exit_layers=[1, 2])
    windows = torch.randint(0, tiny.VOCABULARY, (4, 16), generator=torch.Generator().manual_seed(0))
    expected = record(model, windows)
    monkeypatch.setattr(record_module, "_LOGITS_AT_ONCE", 10 * tiny.VOCABULARY)
    seen = []
    handle = model.base.lm_head.register_forward_hook(lambda _module, _inputs, output: seen.append(len(output)))
    try:
        pieces = record(model, windows)
    finally:
        handle.remove()
    assert max(seen) == 10
    np.testing.assert_array_equal(pieces.exit_ids, expected.exit_ids)
    np.testing.assert_allclose(pieces.log_partition, expected.log_partition, atol=1e-6)


def test_windows_are_spread_over_the_documents_and_labelled():
    model = sv.load(tiny.base("llama", 0), exit_layers=[1])
    documents = {"counting": [list(range(40))], "sevens": [[7] * 20, [8] * 20]}
    dense = record_text(model, documents, window=8, count=3, progress=False)
    assert dense.kinds == ("counting",) * 3 + ("sevens",) * 3
    assert dense.token_ids[:3, 0].tolist() == [0, 16, 32]
    assert dense.source["text"] == "given"
    assert record_text(model, documents["sevens"], window=8, progress=False).kinds == ()
    with pytest.raises(sv.PromptError, match="one string"):
        record_text(model, "Once upon a time")
    with pytest.raises(sv.SettingsError, match="at least 1"):
        record_text(model, documents, window=8, count=0)
    with pytest.raises(sv.PromptError, match="less than one window"):
        record_text(model, [[1, 2, 3]], window=8)

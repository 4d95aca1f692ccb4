"""The lens grid and the step-by-step staircase show what the model did, and token text as text."""

from __future__ import annotations

import json

import pytest

import selfdraft_viz as sv
from selfdraft_viz.lab.lens import in_words, lens_table
from selfdraft_viz.lab.record import record
from selfdraft_viz.plots.lens import lens_figure
from selfdraft_viz.plots.steps import staircase_steps
from selfdraft_viz.plots.text import hover_text


def test_the_lens_reads_each_layer_and_ends_with_the_model(embedded):
    prompt = "Once upon a time there was"
    table = lens_table(embedded, prompt, layers=[2, 8])
    assert sorted(table["layer"].unique()) == [2, 8, 16]
    last = table.query("layer == 16")
    assert last["agrees"].all()
    assert last["guess"].iloc[-1] == embedded.generate_plain(prompt, max_new_tokens=1).text
    checks = (
        embedded.with_heads(sv.ExitHeads([2, 8]))
        .generate(prompt, sv.Settings(sv.NoAnnealing(), sv.NEVER), max_new_tokens=2)
        .exit_checks
    )
    longer = lens_table(
        embedded, [*embedded.encode(prompt), embedded.generate_plain(prompt, max_new_tokens=1).token_ids[0]], [2, 8]
    )
    for check in checks.itertuples():
        row = longer.query(f"layer == {check.layer} and position == {check.position}").iloc[0]
        assert row["confidence"] == pytest.approx(check.confidence, abs=1e-4)
        assert row["guess"] == check.text


def test_a_sure_and_wrong_cell_is_framed(embedded):
    table = lens_table(embedded, "Once upon a time there was", layers=[2, 8])
    wrong = ((table["confidence"] >= 0.4) & ~table["agrees"]).sum()
    assert wrong > 0
    assert len(lens_figure(table, "t", sure=0.4).layout.shapes) == wrong


def test_token_text_is_never_markup(embedded):
    table = lens_table(embedded, "Once upon a time", layers=[2]).assign(guess="<b>$x$", text="<i>")
    figure = lens_figure(table)
    assert {text for row in figure.data[0].customdata for text in row} == {hover_text("<b>$x$")}
    assert "<i>" not in json.dumps(figure.layout.xaxis.to_plotly_json())


def test_mistakes_come_in_words(embedded):
    import torch

    from selfdraft_viz.lab.calibration import confident_mistakes

    model = embedded.with_heads("logit lens")
    ids = torch.tensor([model.encode("Once upon a time there was a little girl who lived in a house.")])
    dense = record(model, ids)
    found = in_words(confident_mistakes(dense, threshold=0.3), dense, model)
    assert len(found)
    assert (found["exit_says"] != found["model_says"]).all()


def test_every_step_of_a_decode_is_a_frame(embedded):
    settings = sv.Settings(sv.NoAnnealing(), threshold=0.4, max_depth=8, max_width=4, exit_layers=(2, 4, 8))
    trace = embedded.generate("The king said to the", settings, max_new_tokens=5)
    figure = staircase_steps(trace, "t")
    notes = [frame.layout.annotations[0].text for frame in figure.frames]
    assert sum("Exit " in note for note in notes) == len(trace.exit_checks)
    assert sum("it is drafted" in note for note in notes) == len(trace.drafts)
    assert sum("committed" in note for note in notes) == len(trace.rounds)
    assert len(figure.layout.sliders[0].steps) == len(figure.frames)
    last = figure.frames[-1].layout.xaxis.ticktext
    assert len(last) == len(figure.frames[0].layout.xaxis.ticktext)
    assert [text.strip() for text in last if text] == [
        hover_text(text.strip()[:9] + "…" if len(text.strip()) > 10 else text.strip()) for text in trace.tokens["text"]
    ]
    widths = {len(frame.data) for frame in figure.frames}
    assert widths == {7}


def test_ordinary_decoding_has_two_steps_a_token(embedded):
    trace = embedded.generate_plain("The king said to the", max_new_tokens=5)
    figure = staircase_steps(trace, "t")
    notes = [frame.layout.annotations[0].text for frame in figure.frames]
    assert sum("goes through layers 1 to 16" in note for note in notes) == 4
    assert sum("it is committed" in note for note in notes) == 4
    assert len(notes) == 10  # and the prompt's two
    assert not any("Verification" in note or "nan" in note for note in notes)
    assert not figure.layout.showlegend

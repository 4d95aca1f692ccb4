"""Pinned runs, presets, files out of the explorer and back, and models loaded in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

import selfdraft_viz as sv
from selfdraft_viz.glossary import GLOSSARY
from selfdraft_viz.plots.page import page
from selfdraft_viz.plots.pinned import MOST_PINS
from selfdraft_viz.widgets import TraceViewer
from selfdraft_viz.widgets.pins import COLUMNS
from selfdraft_viz.widgets.terms import Terms


@pytest.fixture
def explorer() -> sv.Explorer:
    explorer = sv.Explorer(sv.load(), max_new_tokens=24)
    explorer.run().wait(60)
    return explorer


def lines(explorer: sv.Explorer) -> list[str]:
    """Names of the pinned runs that the dashboard draws."""
    figure = explorer._views.dashboard.snapshot()
    return [curve.name for curve in figure.data if curve.legend == "legend4" and curve.showlegend]


def test_a_pinned_run_stays_under_the_next(explorer: sv.Explorer) -> None:
    summary = explorer.trace.summary()
    explorer.pin("first")
    explorer.settings = sv.Settings(sv.NoAnnealing(), threshold=0.3)
    explorer.run().wait(60)
    live, row = (dict(zip(COLUMNS, row, strict=True)) for row in explorer._views.pins.table.rows)
    now = explorer.trace.summary()
    assert live["run"] == "this run"
    assert live["layer passes per token"] == f"{now['layer_passes_per_token']:.1f} of 16"
    assert "no annealing; threshold 0.3" in live["settings"]
    assert row["run"] == "first"
    assert row["acceptance rate"] == f"{100 * summary['acceptance_rate']:.0f} %"
    assert row["tokens per round"] == f"{summary['tokens_per_round']:.2f}"
    assert row["layer passes per token"] == f"{summary['layer_passes_per_token']:.1f} of 16"
    assert row["equal"] == "yes"
    assert f"threshold {explorer.model.preset.threshold}" in row["settings"], (
        "the settings it ran under, not those of now"
    )
    assert lines(explorer) == ["first"]
    explorer.unpin("first")
    assert lines(explorer) == [] == explorer._views.pins.table.rows
    with pytest.raises(ValueError, match="no run is pinned as 'first'"):
        explorer.unpin("first")


def test_the_oldest_pin_goes(explorer: sv.Explorer) -> None:
    for _ in range(MOST_PINS + 2):
        explorer.pin()
    assert lines(explorer) == [f"pin {number}" for number in range(3, MOST_PINS + 3)]


def test_settings_that_changed_while_it_ran_are_said_so() -> None:
    explorer = sv.Explorer(sv.load(), max_new_tokens=40, check=False)
    explorer.seconds_per_step = 0.01
    explorer.run()
    while explorer.trace is None or len(explorer.trace.token_ids) < 5:
        pass
    explorer.settings = explorer.settings.replace(threshold=0.4)
    explorer.seconds_per_step = 0
    explorer.wait(60)
    explorer.pin()
    assert "changed while it ran" in explorer._views.pins.table.rows[1][2]
    assert explorer._views.pins.table.rows[1][-1] == "not checked"


def test_nothing_to_pin_or_save_is_an_error_in_words(tmp_path: Path) -> None:
    explorer = sv.Explorer(sv.load())
    for action in (explorer.pin, explorer.page, lambda: explorer.save(tmp_path / "run.parquet")):
        with pytest.raises(ValueError, match=r"run (one|a decode) first"):
            action()
    with pytest.raises(ValueError, match=r"ends in .parquet"):
        explorer.save(tmp_path / "run.csv")


def test_what_is_saved_opens_again(explorer: sv.Explorer, tmp_path: Path) -> None:
    saved = explorer.save(tmp_path / "run.parquet")
    other = sv.Explorer(sv.load(), check=False)
    other.open_trace(saved)
    assert other.trace.token_ids == explorer.trace.token_ids
    assert other.state == "ready"
    assert "A saved trace" in other._views.readout.status
    assert other.equal is None, "not checked: nothing is claimed"
    other.select(len(explorer.trace.prompt_ids) + 3)
    other.run().wait(60)
    assert other._views.readout.status.startswith("Done")
    viewer = TraceViewer(saved)
    assert viewer.trace.token_ids == explorer.trace.token_ids


def test_a_trace_of_another_model_brings_its_own_layers(explorer: sv.Explorer) -> None:
    trace = tiny.load("llama", exit_layers=[1, 2, 3]).generate([1, 2, 3], sv.Settings(threshold=0.2), max_new_tokens=9)
    explorer.open_trace(trace)
    explorer.settings = explorer.settings.replace(threshold=0.5)  # of the model, which stays
    assert explorer._views.dashboard._layers[1] == trace.num_layers != explorer.model.num_layers
    explorer.run().wait(60)
    assert explorer._views.dashboard._layers[1] == explorer.model.num_layers


def test_buttons_hand_over_files(explorer: sv.Explorer) -> None:
    sent = {}
    files = explorer._files
    for name in ("trace", "page", "save_settings"):
        control = getattr(files, name)
        control.send = lambda content, buffers, name=name: sent.update({name: (content["name"], bytes(buffers[0]))})
        control._heard(None, {"type": "wanted"}, [])
    assert sent["trace"][1][:4] == b"PAR1"
    assert sent["page"][1].startswith(b"<!doctype html>")
    assert sv.Settings.from_dict(json.loads(sent["save_settings"][1])) == explorer.settings

    explorer.settings = sv.Settings(threshold=0.1)
    files.load_settings._heard(None, {"type": "file", "name": "a.json"}, [memoryview(sent["save_settings"][1])])
    assert explorer.settings == explorer.model.preset
    files.load_settings._heard(None, {"type": "file", "name": "a.json"}, [memoryview(b"{nonsense")])
    assert "a.json is not a JSON file of settings" in explorer._views.readout.error
    files.open._heard(None, {"type": "file", "name": "run.parquet"}, [memoryview(sent["trace"][1])])
    assert "A saved trace" in explorer._views.readout.status
    files.open._heard(None, {"type": "file", "name": "run.parquet"}, [memoryview(b"no parquet")])
    assert explorer._views.readout.error


def test_presets_move_every_control(explorer: sv.Explorer) -> None:
    controls = explorer._controls
    for name, settings in explorer.model.presets.items():
        controls.preset.value = name
        assert explorer.settings == settings
    controls.never.value = False
    controls.threshold.value = 0.31
    assert controls.preset.value == "your own"


def test_the_sure_loss_runs_more_layers_than_it_saves() -> None:
    model = sv.load()
    name = next(name for name in model.presets if "sure loss" in name)
    summary = model.generate("Once upon a time", model.presets[name], max_new_tokens=12).summary()
    assert summary["drafted"] == 0
    assert summary["layer_passes_per_token"] == 16
    assert summary["exit_checks_per_token"] == len(model.exit_layers)


def test_a_model_is_loaded_in_place(explorer: sv.Explorer, tmp_path: Path) -> None:
    loader = explorer._loader
    loader.heads.value = "logit lens"
    loader.exit_layers.value = "3, 5"
    loader.load()
    loader.wait(60)
    assert explorer._code.code == "explorer.model = sv.load(exit_layers=[3, 5], heads='logit lens')"
    assert explorer.model.exit_layers == (3, 5)
    assert explorer.trace is None
    explorer.run().wait(60)
    assert explorer.equal
    before = explorer.model
    for layers, said in (("3 five", "give whole numbers"), ("99", "exit layer 99")):
        loader.exit_layers.value = layers
        loader.load()
        loader.wait(60)
        assert said in explorer._views.readout.error
    loader.exit_layers.value, loader.name.value = "", str(tmp_path)
    loader.load()
    loader.wait(60)
    assert "no config.json" in explorer._views.readout.error
    assert explorer.model is before
    assert loader.button.disabled is False


def test_loading_tells_how_far_it_is() -> None:
    told = []
    sv.load(progress=lambda *said: told.append(said))
    assert told[-1][1] == told[-1][2] > 0


def test_a_chat_template_wraps_the_prompt() -> None:
    model = sv.load()
    explorer = sv.Explorer(model)
    assert explorer._prompt.chat.layout.display == "none"
    with pytest.raises(sv.PromptError, match="no chat template"):
        explorer.chat = True
    try:
        model.tokenizer.chat_template = "{% for m in messages %}User: {{ m['content'] }}\nStory: {% endfor %}"
        explorer = sv.Explorer(model, "a cat", max_new_tokens=6, check=False)
        explorer.chat = True
        explorer.run().wait(60)
        assert (
            explorer.trace.prompt_ids == list(model.encode("User: a cat\nStory: "))[-len(explorer.trace.prompt_ids) :]
        )
        assert "User: a cat" in model.tokenizer.decode(explorer.trace.prompt_ids)
    finally:
        model.tokenizer.chat_template = None


def test_a_page_stands_alone_and_reads_text_as_text() -> None:
    model = sv.load()
    compared = model.compare("<img src=x onerror=alert(1)> $x^2$ </script>", max_new_tokens=12)
    rows = [["run", "prompt"], ["<b>1</b>", "<img src=x>"]]
    document = page(compared.selfdraft, compared.plain, rows=rows)
    outside = document.replace(document[document.index("<script") : document.rindex("</script>")], "")
    assert "<img" not in document.split("</style>")[1].split("Plotly.newPlot")[0][:20000]
    assert "<img" not in outside
    assert "<b>1</b>" not in outside
    assert "✓ Equal: all 12 new tokens" in document
    assert 'src="http' not in document
    for word in GLOSSARY:
        assert f"<dt>{word}</dt>" in document


def test_words_come_from_the_glossary() -> None:
    assert Terms("draft").terms == [["draft", GLOSSARY["draft"]]]
    with pytest.raises(KeyError):
        Terms("no such word")
    assert all(text and text[-1] in ".)" and term == term.strip() for term, text in GLOSSARY.items())

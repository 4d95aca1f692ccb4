"""The explorer as a person meets it: a real JupyterLab, a real kernel, a real browser."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from browser.jupyter_page import ARTIFACTS, ROOT, SLOW, Browser, browser, jupyterlab
from playwright.sync_api import Locator, expect

import selfdraft_viz as sv

pytestmark = pytest.mark.browser

SAVE = 'explorer.trace.save("run.parquet")'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the notebook, with one cell more that saves the explorer's trace."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.read(ROOT / "notebooks" / "01_explorer.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.cells.append(nbformat.v4.new_code_cell(SAVE))
    nbformat.write(notebook, folder / "explorer.ipynb")
    return folder


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[Browser]:
    """The notebook opened and run from top to bottom."""
    with browser() as opened, jupyterlab(folder) as address:
        opened.open(address, "explorer.ipynb")
        opened.run_all()
        try:
            opened.page.locator(".sv-text").wait_for(timeout=SLOW)
        except Exception:
            opened.shot("no-explorer")
            raise
        deadline = time.monotonic() + SLOW / 1000
        while not (folder / "run.parquet").exists():  # the last cell
            assert time.monotonic() < deadline, "the notebook did not run to its end"
            opened.page.wait_for_timeout(200)
        opened.page.locator(".sv-explorer").evaluate("view => view.scrollIntoView({block: 'start'})")
        yield opened
        assert opened.errors == []
        assert opened.dialogs == [], "text of a prompt was run as code"


def tokens(lab: Browser) -> int:
    return int(lab.page.locator(".sv-text").get_attribute("data-tokens") or 0)


def wait_for_tokens(lab: Browser, count: int) -> None:
    lab.page.wait_for_function(f"() => +document.querySelector('.sv-text').dataset.tokens >= {count}", timeout=SLOW)


def button(lab: Browser, name: str) -> Locator:
    return lab.page.locator(".sv-explorer").get_by_role("button", name=re.compile(rf"\b{name}$"))


def slider(lab: Browser, name: str) -> Locator:
    return lab.page.locator(".sv-explorer").get_by_role("slider", name=name, exact=True)


def new_tokens(lab: Browser, count: int) -> None:
    field = lab.page.get_by_label("new tokens").first
    field.fill(str(count))
    field.press("Tab")


def prompt(lab: Browser, text: str) -> None:
    box = lab.page.locator(".sv-explorer textarea").first
    box.fill(text)
    box.blur()


def status(lab: Browser) -> Locator:
    return lab.page.locator(".sv-explorer .sv-status")


def saved(lab: Browser, folder: Path) -> sv.Trace:
    """The explorer's trace, by way of the kernel."""
    (folder / "run.parquet").unlink(missing_ok=True)
    cells = lab.page.locator(".jp-Notebook .jp-Cell")
    lab.run_cell(cells.count() - 1)
    lab.page.locator(".sv-explorer").evaluate("view => view.scrollIntoView({block: 'start'})")
    return sv.Trace.load(folder / "run.parquet")


def test_the_notebook_runs_from_top_to_bottom(lab: Browser) -> None:
    expect(lab.page.get_by_text("equal to ordinary decoding: True")).to_be_visible(timeout=SLOW)
    expect(status(lab)).to_contain_text("Equal: all 48 new tokens", timeout=SLOW)
    lab.shot("notebook")


def test_sliders_moved_while_it_decodes_hold_from_the_next_decision_on(lab: Browser, folder: Path) -> None:
    model = sv.load()
    layer = next(iter(model.preset.plan(model.exit_layers, model.num_layers).exit_temperatures))
    prompt(lab, "import os\nimport")  # goes on and on
    new_tokens(lab, 600)
    pace = slider(lab, "seconds to hold after each step")
    pace.press("ArrowRight")  # slow enough for a hand to follow
    expect(lab.page.locator(".sv-code code")).to_have_text("explorer.seconds_per_step = 0.05", timeout=SLOW)
    button(lab, "Run").click()
    wait_for_tokens(lab, 25)
    lab.shot("running")
    slider(lab, "annealing strength").press("End")
    wait_for_tokens(lab, tokens(lab) + 25)
    slider(lab, f"exit temperature after {layer} layers").press("Home")
    wait_for_tokens(lab, tokens(lab) + 25)
    assert lab.page.locator(".sv-side select").nth(1).input_value() == "per layer"
    button(lab, "Stop").click()
    expect(status(lab)).to_contain_text("Stopped after", timeout=SLOW)
    pace.press("Home")
    lab.shot("stopped")
    stopped_at = tokens(lab)
    lab.page.wait_for_timeout(500)
    assert tokens(lab) == stopped_at

    trace = saved(lab, folder)
    assert len(trace.token_ids) == stopped_at < 600
    checks = trace.exit_checks[trace.exit_checks["layer"] == layer]
    seen = list(dict.fromkeys(checks["exit_temperature"].round(4)))
    num_layers = trace.num_layers
    assert seen == [round(1 + alpha * (1 - layer / num_layers), 4) for alpha in (0.5, 4.0)] + [0.1]


def test_step_pause_and_resume(lab: Browser, folder: Path) -> None:
    pace = slider(lab, "seconds to hold after each step")
    pace.press("ArrowRight")
    new_tokens(lab, 500)
    button(lab, "Step").click()
    expect(status(lab)).to_contain_text("Paused", timeout=SLOW)
    for _ in range(8):
        button(lab, "Step").click()
        lab.page.wait_for_timeout(150)
    expect(status(lab)).to_contain_text("Paused", timeout=SLOW)
    few = tokens(lab)
    assert few < 12
    lab.shot("stepped")
    button(lab, "Resume").click()
    wait_for_tokens(lab, few + 20)
    button(lab, "Pause").click()
    expect(status(lab)).to_contain_text("Paused", timeout=SLOW)
    held = tokens(lab)
    lab.page.wait_for_timeout(600)
    assert tokens(lab) == held
    button(lab, "Stop").click()
    expect(status(lab)).to_contain_text("Stopped", timeout=SLOW)
    pace.press("Home")
    assert len(saved(lab, folder).token_ids) == held


def test_markup_in_the_prompt_is_harmless(lab: Browser) -> None:
    prompt(lab, "<img src=x onerror=alert(1)> <script>alert(2)</script> $x^2$\n\x1b[31m")
    new_tokens(lab, 12)
    button(lab, "Run").click()
    expect(status(lab)).to_contain_text("Done", timeout=SLOW)
    shown = lab.page.locator(".sv-text").inner_text()
    assert "<img src=x onerror=alert(1)> <script>alert(2)</script> $x^2$" in shown
    assert lab.page.locator(".sv-explorer img, .sv-explorer script").count() == 0
    lab.shot("markup")
    assert lab.dialogs == []


def shapes(lab: Browser, plot: int) -> list[dict]:
    """Rectangles that a plot draws around what is selected."""
    drawn = lab.page.locator(".sv-explorer .sv-plot").nth(plot)
    drawn.scroll_into_view_if_needed()
    lab.page.wait_for_timeout(800)
    return drawn.evaluate(
        "plot => plot._fullLayout.shapes.filter(s => s.type === 'rect').map(s => ({x0: s.x0, x1: s.x1}))"
    )


def plot_number(lab: Browser, words: str) -> int:
    labels = lab.page.locator(".sv-explorer .sv-plot").evaluate_all("all => all.map(p => p.ariaLabel ?? '')")
    return next(index for index, label in enumerate(labels) if words in label)


def finished(lab: Browser, prompt_text: str, count: int) -> None:
    prompt(lab, prompt_text)
    new_tokens(lab, count)
    button(lab, "Run").click()
    expect(status(lab)).to_contain_text(f"Equal: all {count} new tokens", timeout=SLOW)


def test_a_selected_token_is_selected_in_every_view(lab: Browser) -> None:
    finished(lab, "Once upon a time, there was a little girl named Lily. She", 40)
    lab.page.wait_for_timeout(800)
    chosen = lab.page.locator(".sv-text [data-position]").nth(9)
    position = int(chosen.get_attribute("data-position"))
    chosen.click()
    caption = lab.page.locator(".sv-narrow caption")
    expect(caption).to_contain_text(f"at position {position}", timeout=SLOW)
    expect(lab.page.locator(".sv-text .sv-selected")).to_have_attribute("data-position", str(position))
    frame = [{"x0": position - 0.5, "x1": position + 0.5}]
    staircase, dashboard = plot_number(lab, "Staircase"), plot_number(lab, "new tokens")
    lab.page.wait_for_timeout(800)
    assert shapes(lab, staircase) == frame
    assert shapes(lab, dashboard) == frame
    expect(lab.page.locator(".sv-code code")).to_have_text(f"explorer.select({position})")

    lab.page.locator(".sv-text").press("ArrowRight")
    expect(caption).to_contain_text(f"at position {position + 1}", timeout=SLOW)
    button(lab, "look at every exit").click()
    expect(lab.page.locator(".sv-narrow tbody")).to_contain_text("last", timeout=SLOW)
    hovered = lab.page.locator(".sv-text .sv-selected")
    hovered.hover()
    expect(hovered).to_have_attribute("title", re.compile(r"exit \d+: confidence [01]\.\d{3} at T ="), timeout=SLOW)
    lab.shot("selected")


def test_the_staircase_is_played_back_round_by_round(lab: Browser) -> None:
    said = lab.page.locator(".sv-said")
    expect(said).to_contain_text("Finished after 40 new tokens", timeout=SLOW)
    lab.page.locator(".sv-playback button", has_text="◀ round").click()
    lab.page.locator(".sv-playback button", has_text="◀ round").click()
    expect(said).to_contain_text(re.compile(r"Round \d+: \d+ of \d+ drafts? accepted"), timeout=SLOW)
    scrubber = lab.page.locator(".sv-playback .noUi-handle")
    scrubber.press("Home")
    expect(said).to_contain_text("Before the prompt.", timeout=SLOW)
    lab.shot("played-back")
    for _ in range(6):
        scrubber.press("ArrowRight")
    expect(said).not_to_contain_text("Before the prompt.", timeout=SLOW)


def test_a_pinned_run_is_compared_with_the_next(lab: Browser) -> None:
    button(lab, "Pin run").click()
    row = lab.page.locator(".sv-pinned tbody tr")
    expect(row).to_have_count(2, timeout=SLOW)
    expect(row.last).to_contain_text("pin 1")
    presets = lab.page.locator(".sv-side select").first
    presets.select_option("careful")
    expect(lab.page.locator(".sv-code code")).to_contain_text("threshold=0.9", timeout=SLOW)
    button(lab, "Run").click()
    expect(status(lab)).to_contain_text("Equal: all 40 new tokens", timeout=SLOW)
    expect(row.first).to_contain_text("threshold 0.9")
    lab.page.locator(".sv-pinned").scroll_into_view_if_needed()
    lab.shot("pinned")


def test_words_explain_themselves(lab: Browser) -> None:
    word = lab.page.locator(".sv-term", has_text="catch-up").first
    word.scroll_into_view_if_needed()
    word.hover()
    bubble = lab.page.locator(".sv-bubble:visible")
    expect(bubble).to_contain_text("carried up together with the newest row", timeout=SLOW)
    lab.shot("glossary")
    lab.page.mouse.move(2, 2)
    expect(bubble).to_have_count(0)
    word.focus()
    expect(bubble).to_have_count(1)
    word.blur()


def test_the_exported_page_opens_alone(lab: Browser, folder: Path) -> None:
    with lab.page.expect_download(timeout=SLOW) as download:
        lab.page.locator(".sv-download", has_text="Save page").click()
    path = folder / "export.html"
    download.value.save_as(path)
    alone = lab.page.context.browser.new_context(offline=True)
    opened = alone.new_page()
    asked: list[str] = []
    errors: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("dialog", lambda dialog: (errors.append(dialog.message), dialog.dismiss()))
    try:
        opened.goto(path.as_uri())
        expect(opened.locator(".js-plotly-plot")).to_have_count(3, timeout=SLOW)
        expect(opened.get_by_text("✓ Equal: all 40 new tokens")).to_be_visible()
        opened.screenshot(path=ARTIFACTS / "exported.png", full_page=True)
        assert [url for url in asked if not url.startswith(("file:", "blob:", "data:"))] == []
        assert errors == []
    finally:
        alone.close()
    with lab.page.expect_download(timeout=SLOW) as download:
        lab.page.locator(".sv-download", has_text="Save trace").click()
    download.value.save_as(folder / "exported.parquet")
    assert len(sv.Trace.load(folder / "exported.parquet").token_ids) == 40


def test_settings_come_from_a_file(lab: Browser, folder: Path) -> None:
    sv.Settings(threshold=0.42, max_width=3).save(folder / "mine.json")
    lab.page.locator("input[type=file][accept='.json']").set_input_files(folder / "mine.json")
    expect(lab.page.locator(".sv-code code")).to_have_text(
        "explorer.settings = sv.Settings.load('mine.json')", timeout=SLOW
    )
    assert lab.page.get_by_label("threshold, exact value").input_value() == "0.42"


def test_a_dark_theme_is_taken_over(lab: Browser) -> None:
    colour = "node => getComputedStyle(node).color"
    tile = lab.page.locator(".sv-tile .sv-value").first
    light = tile.evaluate(colour)
    lab.page.evaluate("window.jupyterapp?.commands?.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    lab.page.wait_for_timeout(1500)
    if tile.evaluate(colour) == light:  # by hand, where the application is not exposed
        lab.page.get_by_role("menuitem", name="Settings", exact=True).click()
        lab.page.get_by_text("Theme", exact=True).first.hover()
        lab.page.get_by_text("JupyterLab Dark", exact=True).click()
        lab.page.wait_for_timeout(1500)
    assert tile.evaluate(colour) != light
    lab.page.locator(".sv-explorer").evaluate("view => view.scrollIntoView({block: 'start'})")
    lab.shot("dark")


def test_errors_are_said_in_the_widget(lab: Browser) -> None:
    prompt(lab, "")
    button(lab, "Run").click()
    alert = lab.page.locator(".sv-explorer .sv-error")
    expect(alert).to_contain_text("the prompt is empty", timeout=SLOW)
    lab.shot("error")
    prompt(lab, "Once upon a time")
    button(lab, "Run").click()
    expect(status(lab)).to_contain_text("Equal", timeout=SLOW)
    expect(alert).to_be_empty()


def test_clearing_the_output_ends_the_run(lab: Browser, folder: Path) -> None:
    """Nobody looks any more: the run stops by itself, before its end."""
    slider(lab, "seconds to hold after each step").press("ArrowRight")
    new_tokens(lab, 900)
    button(lab, "Run").click()
    wait_for_tokens(lab, 5)
    lab.page.get_by_role("menuitem", name="Edit", exact=True).click()
    lab.page.get_by_text("Clear Outputs of All Cells", exact=True).click()
    lab.page.locator(".sv-text").wait_for(state="detached", timeout=SLOW)
    lab.page.wait_for_timeout(5000)
    cells = lab.page.locator(".jp-Notebook .jp-Cell")
    lab.run_cell(cells.count() - 1)
    one = len(sv.Trace.load(folder / "run.parquet").token_ids)
    lab.page.wait_for_timeout(1500)
    lab.run_cell(cells.count() - 1)
    assert len(sv.Trace.load(folder / "run.parquet").token_ids) == one < 900

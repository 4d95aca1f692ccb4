"""The explorer as a person meets it: a real JupyterLab, a real kernel, a real browser."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from browser.jupyter_page import ROOT, SLOW, Browser, browser, jupyterlab
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
    field = lab.page.locator(".sv-explorer .widget-text input[type=number]").first
    field.fill(str(count))
    field.press("Tab")


def prompt(lab: Browser, text: str) -> None:
    box = lab.page.locator(".sv-explorer textarea")
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
    button(lab, "Run").click()
    wait_for_tokens(lab, 25)
    lab.shot("running")
    slider(lab, "annealing strength").press("End")
    wait_for_tokens(lab, tokens(lab) + 25)
    slider(lab, f"exit temperature after {layer} layers").press("Home")
    wait_for_tokens(lab, tokens(lab) + 25)
    assert lab.page.locator(".sv-explorer select").nth(1).input_value() == "per layer"
    button(lab, "Stop").click()
    expect(status(lab)).to_contain_text("Stopped after", timeout=SLOW)
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

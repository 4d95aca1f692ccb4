"""The notebook as a page of its own: the explorer without code, and nothing asked of any other host."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser.jupyter_page import ROOT, SLOW, browser, voila
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def test_voila_serves_the_explorer(tmp_path: Path) -> None:
    shutil.copy(ROOT / "notebooks" / "01_explorer.ipynb", tmp_path / "explorer.ipynb")
    with browser() as opened, voila(tmp_path, "explorer.ipynb") as address:
        page = opened.page
        hosts: set[str] = set()
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto(address, timeout=SLOW)
        page.locator(".sv-text").wait_for(timeout=SLOW)
        explorer = page.locator(".sv-explorer")
        expect(explorer.locator(".sv-status")).to_contain_text("Equal", timeout=SLOW)  # the notebook's own run
        assert page.locator(".jp-CodeMirrorEditor, .jp-InputArea-editor, .highlight").count() == 0, "code is shown"
        field = page.get_by_label("new tokens").first
        field.fill("16")
        field.press("Tab")
        explorer.get_by_role("button", name=re.compile(r"\bRun$")).click()
        expect(explorer.locator(".sv-status")).to_contain_text("Equal: all 16 new tokens", timeout=SLOW)
        page.locator(".sv-explorer .js-plotly-plot .main-svg").first.wait_for(timeout=SLOW)
        explorer.evaluate("view => view.scrollIntoView({block: 'start'})")
        opened.shot("voila")
        elsewhere = {host for host in hosts if host and host != urlsplit(address).netloc}
        assert elsewhere == set()
        assert opened.errors == []

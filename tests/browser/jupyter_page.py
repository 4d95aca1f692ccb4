"""A JupyterLab of the test's own, and a browser to drive it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / ".artifacts"
_CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SLOW = 120_000  # milliseconds: machines that run tests are busy


def chromium() -> str:
    """Where the browser is. Without one the test is skipped; under CI that is a failure."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    reason = "no chromium on this machine: install it (Debian: apt-get install chromium) to run the tests in a browser"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def jupyterlab(folder: Path) -> AbstractContextManager[str]:
    """JupyterLab over `folder`, with settings of its own. Gives its address; ends it and its kernels."""
    command = [
        "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--ServerApp.root_dir={folder}",
        "--IdentityProvider.token=", "--ServerApp.password=", "--ServerApp.disable_check_xsrf=True",
        "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    return _server(folder, command, "/api/status")


def voila(folder: Path, notebook: str) -> AbstractContextManager[str]:
    """A notebook as Voila serves it. Gives its address; ends it and its kernels."""
    return _server(folder, ["-m", "voila", notebook, "--no-browser", "--Voila.ip=127.0.0.1"], "/voila/static/")


@contextmanager
def _server(folder: Path, command: list[str], alive: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = folder / ".jupyter-home"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *command, f"--port={port}"],
            cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{address}{alive}", timeout=2).close()
                break
            except urllib.error.HTTPError:  # it answers
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"{command[1]} did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.3)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


class Browser:
    """A page, and what went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))

    def open(self, address: str, notebook: str) -> None:
        self.page.goto(f"{address}/lab/tree/{notebook}?reset")
        self.page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=SLOW)
        decline = self.page.get_by_role("button", name="No", exact=True)
        try:
            decline.wait_for(timeout=3000)
            decline.click()
        except Exception:  # the question about news does not always come
            pass
        self.page.keyboard.press("Control+b")  # more room
        self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=SLOW)

    def run_all(self) -> None:
        """Run every cell. What is asked of a kernel that is still starting can be lost: ask until it has begun."""
        first = self.page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt").first
        for _ in range(10):
            self.page.get_by_role("menuitem", name="Run", exact=True).click()
            self.page.get_by_text("Run All Cells", exact=True).click()
            try:
                expect(first).not_to_have_text("[ ]:", timeout=6000)
                return
            except AssertionError:
                continue
        pytest.fail("the kernel runs no cell")

    def run_cell(self, index: int) -> None:
        """Run one cell again and wait until the kernel has done so."""
        cell = self.page.locator(".jp-Notebook .jp-Cell").nth(index)
        cell.locator(".cm-content").click()
        before = cell.locator(".jp-InputPrompt").inner_text()
        self.page.keyboard.press("Control+Enter")
        expect(cell.locator(".jp-InputPrompt")).not_to_have_text(before, timeout=SLOW)
        expect(cell.locator(".jp-InputPrompt")).not_to_have_text("[*]:", timeout=SLOW)

    def shot(self, name: str) -> None:
        ARTIFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=ARTIFACTS / f"{name}.png")


@contextmanager
def browser(width: int = 1500, height: int = 1400) -> Iterator[Browser]:
    executable = chromium()
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=executable, args=_CHROMIUM)
        try:
            yield Browser(launched.new_context(viewport={"width": width, "height": height}).new_page())
        finally:
            launched.close()

"""`selfdraft-viz notebooks`: a folder of one's own with the shipped notebooks, open in JupyterLab."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

import selfdraft_viz
from selfdraft_viz.cli.notebook_pages import notebook_page
from selfdraft_viz.cli.terminal import printable
from selfdraft_viz.errors import LoadError

FIRST = "01_explorer.ipynb"
_DEFAULT = Path("selfdraft-notebooks")
_LEFT_BEHIND = shutil.ignore_patterns(".*", "__pycache__")


def notebooks(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where they go; default: ./selfdraft-notebooks, or in a checkout the notebooks there."),
    ] = None,
    copy_only: Annotated[bool, typer.Option("--copy-only", help="Do not start JupyterLab.")] = False,
    html: Annotated[
        bool, typer.Option("--html", help="Write each as a web page beside it, figures included; no JupyterLab.")
    ] = False,
) -> None:
    """Open the explorer notebook in JupyterLab, to which other arguments (--no-browser, --port 8890) are handed on."""
    place = prepare(folder)
    print(f"notebooks: {printable(str(place.resolve()))}")
    if html:
        for notebook in sorted(place.glob("*.ipynb")):
            page = notebook.with_suffix(".html")
            page.write_text(notebook_page(notebook), encoding="utf-8")
            print(f"written: {printable(str(page))}")
    elif not copy_only:
        raise typer.Exit(_run_lab(place / FIRST, context.args))


def prepare(folder: Path | None) -> Path:
    """The folder to work in: `folder`, with every shipped notebook that it lacks; files that are there are kept.

    None = the notebooks of the checkout that the current folder lies in, or else ./selfdraft-notebooks.

    Raises:
        LoadError: the notebooks are not there, or `folder` is a file.
    """
    if folder is None:
        checkout = _checkout(Path.cwd())
        if checkout is not None:
            return checkout
        folder = _DEFAULT
    if folder.exists() and not folder.is_dir():
        raise LoadError(f"{folder} is a file: give a folder for the notebooks")
    shutil.copytree(shipped(), folder, ignore=_LEFT_BEHIND, copy_function=_copy_if_new, dirs_exist_ok=True)
    return folder


def shipped() -> Path:
    """Where the notebooks lie: in the installed package, or beside it in a checkout.

    Raises:
        LoadError: in neither.
    """
    package = Path(selfdraft_viz.__file__).resolve().parent
    for place in (package / "notebooks", package.parent / "notebooks"):
        if (place / FIRST).is_file():
            return place
    raise LoadError(f"the notebooks are missing beside {package}: install selfdraft_viz again")


def _checkout(start: Path) -> Path | None:
    """The notebooks of the checkout of this project that `start` lies in."""
    for folder in (start, *start.parents):
        if (folder / "notebooks" / FIRST).is_file() and (folder / "selfdraft_viz" / "__init__.py").is_file():
            return folder / "notebooks"
    return None


def _copy_if_new(source: str, target: str) -> str:
    if Path(target).exists():
        print(f"kept: {printable(target)}")
        return target
    return shutil.copyfile(source, target)  # not the mode: an installed package may be read-only


def _run_lab(notebook: Path, arguments: list[str]) -> int:
    """Run JupyterLab until it ends; returns its exit status. It is interrupted by Ctrl-C as usual, and ends with us."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise LoadError("JupyterLab is not installed in this environment: pip install jupyterlab")
    command = [sys.executable, "-m", "jupyterlab"]
    command.append(f"--ServerApp.root_dir={notebook.resolve().parent}")
    command.append(f"--LabApp.default_url=/lab/tree/{notebook.name}")
    command.append("--LabApp.news_url=None")  # asks nothing, and fetches nothing from the network
    if hasattr(os, "geteuid") and os.geteuid() == 0 and "--allow-root" not in arguments:
        command.append("--allow-root")  # as in containers; JupyterLab would refuse to start
    lab = subprocess.Popen([*command, *arguments])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells JupyterLab too, which asks back
    signal.signal(signal.SIGTERM, lambda *_: lab.terminate())
    return lab.wait()

"""The command line: `selfdraft-viz`, also `python -m selfdraft_viz`.

Torch and the other large libraries are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from selfdraft_viz import __version__
from selfdraft_viz.cli.bench import bench
from selfdraft_viz.cli.generate import generate
from selfdraft_viz.cli.notebooks import notebooks
from selfdraft_viz.cli.terminal import complain
from selfdraft_viz.cli.train_heads import train_heads
from selfdraft_viz.errors import SelfDraftError

app = typer.Typer(
    name="selfdraft-viz",
    help="Self-draft decoding of language models: exact, early-exit self-speculation, seen and timed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(generate)
app.command("train-heads")(train_heads)
app.command()(bench)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(notebooks)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: None = those of the process.

    Raises:
        SystemExit: with 0, or with 2 after one readable line on stderr, or with 130 when interrupted.
    """
    try:
        app(None if arguments is None else list(arguments), prog_name="selfdraft-viz")
    except (SelfDraftError, OSError) as error:
        complain(str(error))
        sys.exit(2)

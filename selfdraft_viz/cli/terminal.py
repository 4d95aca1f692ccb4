"""Text on a terminal: escaped, and coloured by exit depth."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from selfdraft_viz.events import Committed
from selfdraft_viz.text import PLACEHOLDER, Pieces


def printable(text: str) -> str:
    r"""`text` with control and invisible characters written out (`\x1b`, `\u202e`), so that a terminal interprets none.

    Newlines and tabs stay, and so do the joiners that emoji and some scripts need.
    """
    return "".join(_written_out(character) for character in text)


def _written_out(character: str) -> str:
    if character.isprintable() or character in "\n\t\u200c\u200d" or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode("ascii")


def complain(message: str) -> None:
    """One line on stderr."""
    print("error:", " ".join(printable(message).split()), file=sys.stderr)


def console(stderr: bool = False) -> Console:
    """A console that shows texts as they are: no markup, no highlighting; wide where nothing limits it."""
    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = 160
    return made


class TokenPrinter:
    """Prints tokens as they are committed, coloured by exit depth where they were drafted.

    Args:
        console: where to.
        pieces: token ids to text.
        prompt_ids: the tokens before the first printed one.
        num_layers: L of the model.
        exit_layers: the depths that have a colour.
    """

    def __init__(
        self, console: Console, pieces: Pieces, prompt_ids: Sequence[int], num_layers: int, exit_layers: Iterable[int]
    ) -> None:
        self._console = console
        self._pieces = pieces
        self._sequence = list(prompt_ids)
        self._num_layers = num_layers
        self._styles = _depth_styles(exit_layers, num_layers) if console.is_terminal else {}
        self._waiting = ""  # the placeholder of a character that is not yet whole

    def show(self, event: Committed) -> None:
        piece = self._pieces.piece(self._sequence, event.token_id)
        self._sequence.append(event.token_id)
        self._waiting = piece if piece == PLACEHOLDER else ""
        if not self._waiting:
            self._print(piece, self._styles.get(event.exit_depth))

    def finish(self) -> None:
        """After the last token."""
        self._print(self._waiting, None)
        self._console.out("", highlight=False)

    def legend(self) -> None:
        """What the colours mean; nothing where there are none."""
        if not self._styles:
            return
        line = Text("exit depth, layers: ")
        for depth, style in self._styles.items():
            line.append(f" {depth} ", style)
            line.append(" ")
        line.append(f" not drafted: all {self._num_layers}")
        self._console.print(line)

    def _print(self, text: str, style: Style | None) -> None:
        if style is not None:
            text = text.replace("\n", "↵\n")  # or the colour of a drafted newline would not be seen
        for part in re.split(r"(\n)", printable(text)):  # a coloured newline would colour the rest of the line
            self._console.out(part, style=None if part == "\n" else style, end="", highlight=False)


def _depth_styles(exit_layers: Iterable[int], num_layers: int) -> dict[int, Style]:
    try:
        from selfdraft_viz.plots.colours import depth_palette
    except ModuleNotFoundError:  # a server without plotly: no colours
        return {}
    palette = depth_palette(exit_layers, num_layers)
    return {depth: Style(color=ink, bgcolor=background) for depth, (background, ink) in palette.items()}


def show_table(out: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: its first column to the left, the others, which hold numbers, to the right."""
    made = Table(box=SIMPLE_HEAD, header_style="bold")
    for index, column in enumerate(columns):
        made.add_column(Text(column), justify="right" if index else "left", no_wrap=True)
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))
    out.print(Text(printable(title), "bold"), soft_wrap=True)
    out.print(made)

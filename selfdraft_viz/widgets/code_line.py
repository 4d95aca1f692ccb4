"""The line of Python that does what a control has just done, ready to copy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import anywidget
import traitlets

from selfdraft_viz.settings import NEVER, Settings
from selfdraft_viz.widgets.assets import STATIC


class CodeLine(anywidget.AnyWidget):
    """Attributes: code, a line of Python; shown as text."""

    _esm = (STATIC / "code_line.js").read_text(encoding="utf-8")
    _css = (STATIC / "code_line.css").read_text(encoding="utf-8")
    code = traitlets.Unicode("").tag(sync=True)


def settings_change(before: Settings, after: Settings) -> str:
    """The line that turns an explorer's settings from one into the other."""
    changes = ", ".join(
        f"{field.name}={literal(getattr(after, field.name))}"
        for field in dataclasses.fields(Settings)
        if getattr(before, field.name) != getattr(after, field.name)
    )
    return f"explorer.settings = explorer.settings.replace({changes})"


def assignment(name: str, value: object) -> str:
    """`explorer.name = value`."""
    return f"explorer.{name} = {literal(value)}"


def literal(value: object) -> str:
    """A value as it is typed after `import selfdraft_viz as sv`."""
    if isinstance(value, float) and value == NEVER:
        return "sv.NEVER"
    if isinstance(value, (str, int, float)) or value is None:
        return repr(value)
    if isinstance(value, Mapping):
        return repr(dict(value))
    if isinstance(value, Sequence):
        return repr(list(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = [
            f"{field.name}={literal(getattr(value, field.name))}"
            for field in dataclasses.fields(value)
            if field.init and getattr(value, field.name) != field.default
        ]
        name = type(value).__name__
        return f"sv.{name}({', '.join(given)})"
    return repr(value)

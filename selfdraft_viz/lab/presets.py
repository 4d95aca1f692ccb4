"""Settings by name that the explorer offers: saved beside the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from selfdraft_viz.errors import SettingsError
from selfdraft_viz.settings import Settings

if TYPE_CHECKING:
    from selfdraft_viz.model import Model


def save_preset(model: Model, name: str, settings: Settings, folder: str | Path | None = None) -> Path:
    """Save `settings` under a name that the explorer offers for `model` from now on. Returns the file's path.

    Args:
        model: what `selfdraft_viz.load` returned; it has the preset at once, and again when it is loaded from the same
            folder.
        name: letters, digits, spaces and - _ . , =
        settings: must fit the model.
        folder: None = `presets` beside the model, where it lies in a folder.

    Raises:
        SettingsError: the name cannot be a file's, the settings do not fit, or the model lies in no folder.
    """
    from selfdraft_viz.model import EMBEDDED, PRESETS_FOLDER, embedded_folder

    if not re.fullmatch(r"[\w\-.,= ]*\w", name):
        raise SettingsError(
            f"preset name {name!r}: use letters, digits, spaces and - _ . , = with one of the first last"
        )
    settings.plan(model.exit_layers, model.num_layers)
    if folder is None:
        beside = embedded_folder() if model.name == EMBEDDED else Path(model.name).expanduser()
        if not beside.is_dir():
            raise SettingsError(
                f"the model {model.name!r} lies in no folder: give folder=, and load the file from there"
            )
        folder = beside / PRESETS_FOLDER
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    settings.save(path)
    model._saved_presets[name] = settings
    return path

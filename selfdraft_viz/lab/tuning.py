"""From records to tuned settings: search every variant by itself, judge on texts not seen, measure for real."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from selfdraft_viz.lab.costs import Costs
from selfdraft_viz.lab.paired import measure_paired, measured_speedups
from selfdraft_viz.lab.record import DenseRecord
from selfdraft_viz.lab.search import Found, Space, halves, held_out, search
from selfdraft_viz.saved import read_json, reading
from selfdraft_viz.settings import Settings

if TYPE_CHECKING:
    from selfdraft_viz.model import Model

TUNING_FOLDER = Path(str(files("selfdraft_viz"))) / "assets" / "tuning"
"""What ships with the package."""
_FORMAT = "selfdraft_viz tuning"


@dataclass(frozen=True)
class Tuning:
    """What tuning found. Tables have a row a variant, `name`, those by kind a row a kind and variant.

    Attributes:
        settings: the best of each variant, by name.
        searched: `name`, `predicted` on the texts that were searched on.
        predicted: on held-out texts, over kinds; see `selfdraft_viz.lab.search.held_out`.
        predicted_by_kind: the same for each kind by itself, with `kind`.
        measured: on held-out prompts, kind by kind and "all" (see `measured_speedups`); None = not measured.
        reference: the variant that ratios are against.
        hardware: what was predicted for and measured on.
    """

    settings: dict[str, Settings]
    searched: pd.DataFrame
    predicted: pd.DataFrame
    predicted_by_kind: pd.DataFrame
    measured: pd.DataFrame | None
    reference: str
    hardware: dict[str, Any]

    @property
    def winner(self) -> str:
        """The variant with the best predicted speedup on the texts that were searched on: chosen without a look at the
        held-out ones."""
        return str(self.searched["name"].iloc[int(self.searched["predicted"].argmax())])

    def verdict(self) -> str:
        """In words: whether what was found beats the reference on held-out texts."""
        rows = self.predicted.set_index("name")
        best = rows.loc[self.winner]
        if self.winner == self.reference or best["ratio_low"] <= 1:
            return (
                f"no setting was found that is surely faster than {self.reference!r} on texts not seen: "
                f"{self.winner!r} is predicted at {best['ratio']:.2f} times its speed "
                f"({best['ratio_low']:.2f} .. {best['ratio_high']:.2f})"
            )
        return (
            f"{self.winner!r} beats {self.reference!r} on texts not seen: predicted {best['ratio']:.2f} times its "
            f"speed ({best['ratio_low']:.2f} .. {best['ratio_high']:.2f})"
        )

    def save(self, path: str | Path) -> Path:
        """Write a JSON file. Returns the path."""
        tables = {name: getattr(self, name) for name in _TABLES}
        data = {
            "format": _FORMAT,
            "settings": {name: settings.to_dict() for name, settings in self.settings.items()},
            "reference": self.reference,
            "hardware": self.hardware,
            **{name: None if table is None else json.loads(table.to_json(orient="records", double_precision=6))
               for name, table in tables.items()},
        }  # fmt: skip
        Path(path).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Tuning:
        """Read what `save` wrote.

        Raises:
            LoadError: the file is missing, damaged, or of another form.
        """
        with reading(path, "tuning", "tuning.save()"):
            data = read_json(path, "tuning", _FORMAT)
            settings = {name: Settings.from_dict(one) for name, one in data["settings"].items()}
            tables: dict[str, Any] = {
                name: None if data[name] is None else pd.DataFrame(data[name]) for name in _TABLES
            }
            return cls(settings=settings, reference=data["reference"], hardware=data["hardware"], **tables)


_TABLES = ("searched", "predicted", "predicted_by_kind", "measured")


def tune(
    records: Mapping[str, DenseRecord],
    costs: Costs,
    spaces: Mapping[str, Space],
    *,
    model: Model | None = None,
    trials: int = 200,
    seed: int = 0,
    texts: int = 4,
    repeats: int = 2,
    progress: Callable[[str], None] | None = None,
) -> Tuning:
    """Search each of `spaces` on half of the texts; judge, and measure, what was found on the other half.

    Each is searched by itself, and then again from what was found in all of them, so that a wide space does no worse
    than a narrow one inside it for want of trials.

    Args:
        records: by kind, two texts or more of each, of the model that `costs` are for.
        costs: prices of this machine.
        spaces: variants by name, such as `selfdraft_viz.lab.search.ablations`; the first is the reference.
        model: to measure the winners with; None = only predict.
        trials: of each space, half of them in each search.
        seed: of the searches.
        texts: held-out prompts of each kind to measure on.
        repeats: of the measurement.
        progress: called with what is done now.

    Raises:
        SettingsError: a kind has fewer than two texts.
    """
    tell = progress or (lambda what: None)
    seen, unseen = halves(records)
    found: dict[str, Found] = {}
    for turn, how in enumerate(("searching", "searching from the best of all")):
        starts = [one.settings for one in found.values()]
        for name, space in spaces.items():
            tell(f"{how}: {name}")
            found[name] = search(seen, costs, space, trials=-(-trials // 2), starts=starts, seed=seed + turn)
    settings = {name: one.settings for name, one in found.items()}
    by_kind = [held_out({kind: record}, costs, settings).assign(kind=kind) for kind, record in unseen.items()]
    found_all = Tuning(
        settings=settings,
        searched=pd.DataFrame([{"name": name, "predicted": one.predicted} for name, one in found.items()]),
        predicted=held_out(unseen, costs, settings),
        predicted_by_kind=pd.concat(by_kind, ignore_index=True),
        measured=None,
        reference=next(iter(spaces)),
        hardware=dict(costs.hardware),
    )
    if model is None:
        return found_all
    tell("measuring")
    return measure_tuning(found_all, model, records, texts=texts, repeats=repeats)


def measure_tuning(
    tuning: Tuning, model: Model, records: Mapping[str, DenseRecord], *, texts: int = 4, repeats: int = 2
) -> Tuning:
    """`tuning` with its settings measured for real on prompts that were not searched on; arguments as for `tune`, with
    the same records."""
    _, unseen = halves(records)
    parts, runs = [], []
    for kind, record in unseen.items():
        some = record.take(range(min(texts, len(record.token_ids))))
        made = measure_paired(model, some, tuning.settings, repeats=repeats)
        runs.append(made.assign(text=kind + made["text"].astype(str)))
        parts.append(measured_speedups(made).assign(kind=kind))
    measured = pd.concat([measured_speedups(pd.concat(runs)).assign(kind="all"), *parts], ignore_index=True)
    return dataclasses.replace(tuning, measured=measured)


def shipped_tuning(heads: str = "trained") -> Tuning:
    """The tuning of the embedded model that comes with the package, made by `selfdraft_viz.lab.embedded_tuning`.

    Args:
        heads: "trained" or "logit lens".

    Raises:
        LoadError: there is none of that name.
    """
    return Tuning.load(TUNING_FOLDER / f"tuning-{heads.replace(' ', '-')}.json")

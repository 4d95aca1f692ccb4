"""How the embedded model's settings are tuned, for its trained heads and for the logit lens. Run it to do it again:

    python -m selfdraft_viz.lab.embedded_tuning check CORPUS WORK     # prices; predictions against 24 measured settings
    python -m selfdraft_viz.lab.embedded_tuning tune CORPUS WORK      # searches, judges on held-out texts
    python -m selfdraft_viz.lab.embedded_tuning measure CORPUS WORK   # measures what was found
    python -m selfdraft_viz.lab.embedded_tuning ship WORK             # puts it into the package

CORPUS is as for `selfdraft_viz.lab.embedded`; the texts are of its valid files, half of them to search on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from selfdraft_viz.lab.costs import Costs, measure_costs
from selfdraft_viz.lab.embedded import HERE, KINDS, text_windows
from selfdraft_viz.lab.paired import compare_predictions, error_distribution, measure_paired, varied_settings
from selfdraft_viz.lab.record import DenseRecord
from selfdraft_viz.lab.recording import record_continuations
from selfdraft_viz.lab.search import ablations
from selfdraft_viz.lab.tuning import TUNING_FOLDER, Tuning, measure_tuning
from selfdraft_viz.lab.tuning import tune as tune_settings
from selfdraft_viz.model import PRESET_FILE, PRESETS_FOLDER, Model, load

HEADS = {"trained": None, "logit lens": "logit lens"}
LENS_EXITS = (2, 4, 6, 8, 10, 12, 14)
PROMPT, NEW = 32, 129  # tokens: 128, as `generate` makes, after the first

SHIPPED = ("linear annealing", "any alpha", "product of confidences", "cost-aware")

app = typer.Typer(help=__doc__, add_completion=False)
Threads = Annotated[int, typer.Option(help="CPU threads of torch.")]
Heads = Annotated[str, typer.Option(help="trained, or logit lens.")]


def loaded(heads: str) -> Model:
    return load(heads=HEADS[heads], exit_layers=LENS_EXITS if heads == "logit lens" else None)


def named(work: Path, what: str, heads: str, suffix: str = "json") -> Path:
    return work / f"{what}-{heads.replace(' ', '-')}.{suffix}"


def recorded(model: Model, corpus: Path, texts: int) -> dict[str, DenseRecord]:
    """Records by kind of the model's own continuations of valid texts."""
    made = {}
    for kind in KINDS:
        windows = text_windows(model, corpus, kind, "valid", texts, seed=3)[:, :PROMPT]
        made[kind] = record_continuations(model, windows, prompt_tokens=PROMPT, max_new_tokens=NEW, progress=False)
    return made


def priced(model: Model, records: dict[str, DenseRecord]) -> Costs:
    """Prices, measured on the last text of each kind."""
    return measure_costs(model, [record.token_ids[-1, :PROMPT].tolist() for record in records.values()], new_tokens=NEW)


@app.command()
def tune(
    corpus: Path, work: Path, heads: Heads = "trained", texts: int = 48, trials: int = 1000, threads: Threads = 1
) -> None:
    """Search each variant and judge it on held-out texts; writes WORK/tuning-HEADS.json. Prices are those that `check`
    left in WORK, or measured."""
    torch.set_num_threads(threads)
    model = loaded(heads)
    work.mkdir(parents=True, exist_ok=True)
    file = named(work, "costs", heads)
    records = recorded(model, corpus, texts)
    costs = Costs.load(file) if file.is_file() else priced(model, records)
    costs.save(file)
    found = tune_settings(records, costs, ablations(model.exit_layers), trials=trials, progress=typer.echo)
    found.save(named(work, "tuning", heads))
    typer.echo(found.predicted.to_string())
    for name, settings in found.settings.items():
        typer.echo(f"{name}: {settings}")
    typer.echo(found.verdict())


@app.command()
def measure(
    corpus: Path,
    work: Path,
    heads: Heads = "trained",
    texts: int = 48,
    measured: int = 4,
    repeats: int = 6,
    threads: Threads = 1,
) -> None:
    """Measure what `tune` found (with the same --texts) on MEASURED held-out prompts of each kind, REPEATS times over,
    and add it to its file."""
    torch.set_num_threads(threads)
    model = loaded(heads)
    file = named(work, "tuning", heads)
    found = measure_tuning(Tuning.load(file), model, recorded(model, corpus, texts), texts=measured, repeats=repeats)
    found.save(file)
    assert found.measured is not None
    typer.echo(found.measured.to_string())


@app.command()
def ship(work: Path) -> None:
    """Put the tunings of WORK into the package: the winner for the trained heads as the model's preset, the paper's
    rule and the other kinds of rule at their best as presets by name."""
    for heads in HEADS:
        Tuning.load(named(work, "tuning", heads)).save(named(TUNING_FOLDER, "tuning", heads))
    found = Tuning.load(named(work, "tuning", "trained"))
    found.settings[found.winner].save(HERE / PRESET_FILE)
    (HERE / PRESETS_FOLDER).mkdir(exist_ok=True)
    for name in SHIPPED:
        if name != found.winner:
            found.settings[name].save(HERE / PRESETS_FOLDER / f"{name}, searched.json")
    typer.echo(f"preset: {found.winner}: {found.settings[found.winner]}")


@app.command()
def check(corpus: Path, work: Path, heads: Heads = "trained", texts: int = 4, threads: Threads = 1) -> None:
    """Hold predictions for 24 varied settings against paired real runs on TEXTS of each kind; writes
    WORK/check-HEADS.csv. Prices are measured on other texts."""
    torch.set_num_threads(threads)
    model = loaded(heads)
    work.mkdir(parents=True, exist_ok=True)
    records = recorded(model, corpus, texts + 1)
    whole = DenseRecord.joined({kind: record.take(range(texts)) for kind, record in records.items()})
    costs = priced(model, records)
    costs.save(named(work, "costs", heads))
    settings = varied_settings(model.exit_layers, 24)
    table = compare_predictions(whole, costs, settings, measure_paired(model, whole, settings, repeats=2))
    table.to_csv(named(work, "check", heads, "csv"), index=False)
    typer.echo(table.round(3).to_string())
    typer.echo(f"{costs.name}; all equal to ordinary decoding: {bool(table['equal'].all())}")
    typer.echo(str({name: round(value, 4) for name, value in error_distribution(table["error"]).items()}))


if __name__ == "__main__":
    app()

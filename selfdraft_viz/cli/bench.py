"""`selfdraft-viz bench`: how fast, against what, and whether the same."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfdraft_viz.cli import options as opt
from selfdraft_viz.cli.terminal import console, printable, show_table
from selfdraft_viz.errors import SettingsError

if TYPE_CHECKING:
    from rich.console import Console

    from selfdraft_viz.lab.bench_report import BenchReport

_COLUMNS = [
    "", "ms per\ntoken", "x\ntransformers", "x\nplain", "equal", "accepted", "tokens\nper round", "exit\ndepth",
    "layer passes\nper token",
]  # fmt: skip


def bench(
    model: opt.ModelOption = None,
    revision: opt.RevisionOption = None,
    device: opt.DeviceOption = "auto",
    dtype: opt.DtypeOption = None,
    heads: opt.HeadsOption = None,
    exit_layers: opt.ExitLayersOption = None,
    settings: opt.SettingsOption = None,
    threshold: opt.ThresholdOption = None,
    schedule: opt.ScheduleOption = None,
    alpha: opt.AlphaOption = None,
    max_depth: opt.MaxDepthOption = None,
    max_width: opt.MaxWidthOption = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts of your own: .json, .jsonl, .jsonl.xz or .txt; default: shipped ones.")
    ] = None,
    spec_bench: Annotated[
        Path | None,
        typer.Option(help="A file of Spec-Bench's form instead: a report by task, beside the paper's figures."),
    ] = None,
    kinds: Annotated[str | None, typer.Option(help="Kinds of prompts, such as stories,python; default: all.")] = None,
    per_kind: Annotated[int, typer.Option(help="Prompts of each kind.")] = 4,
    new_tokens: Annotated[int, typer.Option("--new-tokens", "-n", help="Tokens that every call makes.")] = 96,
    repeats: Annotated[int, typer.Option(help="Timed rounds over all prompts.")] = 3,
    contenders: Annotated[
        str | None,
        typer.Option(help="What to time: transformers, early-exit, prompt-lookup, plain, self-draft; default: all."),
    ] = None,
    early_exit_layers: Annotated[
        str | None, typer.Option(help="Layers tried for transformers' early exit; the fastest is timed.")
    ] = None,
    lookup_tokens: Annotated[int, typer.Option(help="Drafted by transformers' prompt lookup.")] = 10,
    order: Annotated[str, typer.Option(help="Of the contenders: rotated, shuffled or fixed.")] = "rotated",
    seed: Annotated[int, typer.Option(help="Of the shuffled order.")] = 0,
    threads: Annotated[int | None, typer.Option(help="CPU threads of torch; default: as torch chooses.")] = None,
    kernels: Annotated[str, typer.Option(help="auto, compiled, static or torch.")] = "auto",
    floor: Annotated[bool, typer.Option("--floor", help="Also measure how fast a token could be at best.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON file with every measurement.")] = None,
    plot: Annotated[Path | None, typer.Option(help="HTML file for a figure of the ratios.")] = None,
) -> None:
    """Decode the same prompts by each contender in turn and time it: greedy, every call the same number of tokens."""
    for option, file in (("--output", output), ("--plot", plot)):
        if file is not None and not file.absolute().parent.is_dir():
            raise SettingsError(f"{option} {file}: there is no folder {file.absolute().parent}")
    if threads is not None and threads < 1:
        raise SettingsError(f"--threads {threads}: use at least 1")
    if spec_bench is not None and (prompts is not None or kinds is not None):
        raise SettingsError("--spec-bench has prompts and tasks of its own: leave --prompts and --kinds out")
    import torch
    from rich.progress import Progress

    from selfdraft_viz.lab.bench import BenchOptions, run_bench
    from selfdraft_viz.lab.texts import choose_prompts, read_prompts, shipped_prompts

    chosen_kinds = None if kinds is None else [kind.strip() for kind in kinds.split(",")]
    if spec_bench is not None:
        chosen = []  # they are cut to the model's context, once it is there
    elif prompts is None:
        chosen = shipped_prompts(chosen_kinds, per_kind)
    else:
        chosen = choose_prompts(read_prompts(prompts), chosen_kinds, per_kind)
    typed: dict[str, Any] = {}
    if contenders is not None:
        typed["contenders"] = tuple(key.strip() for key in contenders.split(","))
    if early_exit_layers is not None:
        typed["early_exit_layers"] = tuple(opt.whole_numbers("--early-exit-layers", early_exit_layers))
    options = BenchOptions(
        new_tokens=new_tokens,
        repeats=repeats,
        order=order,  # type: ignore[arg-type]
        seed=seed,
        lookup_tokens=lookup_tokens,
        **typed,
    )
    if threads is not None:
        torch.set_num_threads(threads)
    loaded = opt.load_model(
        model, device=device, dtype=dtype, heads=heads, exit_layers=exit_layers, revision=revision, kernels=kernels
    )
    draft_settings = opt.chosen_settings(
        loaded.preset,
        settings,
        threshold=threshold,
        schedule=schedule,
        alpha=alpha,
        max_depth=max_depth,
        max_width=max_width,
        exit_layers=exit_layers,
    )
    cut = 0
    if spec_bench is not None:
        from selfdraft_viz.lab.spec_bench import read_spec_bench

        tasks = read_spec_bench(spec_bench, loaded, new_tokens, per_kind)
        chosen, cut = list(tasks.prompts), tasks.cut
        if not {"plain", "self-draft"} <= set(options.contenders):
            raise SettingsError("--spec-bench compares plain with self-draft: leave both among the --contenders")
    err = console(stderr=True)
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("")
        report = run_bench(
            loaded,
            chosen,
            draft_settings,
            options,
            progress=lambda done, total, what: progress.update(
                task, completed=done, total=total, description=printable(what)
            ),
        )
    if floor:
        from selfdraft_viz.lab.floor import measure_floor

        report = dataclasses.replace(report, floor=measure_floor(loaded).to_dict())
    show(console(), report)
    if spec_bench is not None:
        show_tasks(console(), report, cut)
    if plot is not None:
        from selfdraft_viz.plots.bench import bench_figure

        titles = {key: contender["title"] for key, contender in report.contenders.items()}
        bench_figure(report.summary(), titles).write_html(plot)
        console().print(f"plotted: {printable(str(plot))}", soft_wrap=True)
    if output is not None:
        console().print(f"saved: {printable(str(report.save(output)))}", soft_wrap=True)


def show(out: Console, report: BenchReport) -> None:
    """The report as one table a kind of text."""
    summary = report.summary()
    for kind, rows in summary.groupby("kind", sort=False):
        prompts, repetition = int(rows["prompts"].iloc[0]), float(rows["repetition"].iloc[0])
        show_table(
            out,
            f"{kind}: prompts: {prompts}, repeated 4-grams in the text: {repetition:.0%}",
            _COLUMNS,
            [[report.contenders[row["contender"]]["title"], *_cells(row)] for row in rows.to_dict("records")],
        )
    environment, options = report.environment, report.options
    where = environment["accelerator"] or f"{environment['processor']}, threads: {environment['threads']}"
    notes = [
        f"{report.model['id']} ({report.model['num_layers']} layers, {report.model['dtype']}) on {where}; torch "
        f"{environment['torch']}, transformers {environment['transformers']}",
        f"{options['new_tokens']} tokens a call, {options['repeats']} timed calls a prompt after a warm-up; "
        "ms per token: median of whole calls, prefill included",
        "x: paired ratio of seconds for the same prompt in the same repeat, median and quartiles; above 1 = faster "
        "than transformers generate, or than plain decoding",
        f"equal: calls that gave the tokens of {report.contenders[report.reference]['title']}",
    ]
    if "early-exit" in report.contenders:
        layer = report.contenders["early-exit"]["generate"]["assistant_early_exit"]
        notes.append(f"transformers early exit: at layer {layer}")
    if report.floor is not None:
        one = report.floor
        notes.append(
            f"floor: {one['weight_bytes'] / 1e6:.1f} MB of weights a token, read at {one['bandwidth'] / 1e9:.1f} GB/s: "
            f"{1000 * one['seconds']:.2f} ms; an ordinary token takes {one['distance']:.1f} times that ("
            + ", ".join(f"{name} {1000 * seconds:.2f} ms" for name, seconds in one["parts"].items())
            + f"); one operation on one number: {1e6 * one['call_seconds']:.1f} us"
        )
    notes += [f"left out: {key}: {reason}" for key, reason in report.left_out.items()]
    for note in notes:
        out.print(printable(note), soft_wrap=True)


def show_tasks(out: Console, report: BenchReport, cut: int) -> None:
    """Per task and overall, as papers on speculative decoding print it, and the paper's own figures."""
    from selfdraft_viz.lab.spec_bench import PAPER_NOTE, paper_rows, task_table

    table = task_table(report)
    out.print()
    show_table(
        out,
        f"Spec-Bench, {printable(str(report.model['id']))}: measured here",
        ["task", "prompts", "tokens\nper round", "accepted", "speedup", "quartiles", "equal"],
        [_task_cells(row) for row in table.to_dict("records")],
    )
    show_table(out, "SpecBound, as printed there: overall, greedy", ["model, method", "speedup"], paper_rows())
    notes = [
        "speedup: seconds of ordinary decoding / seconds of self-draft decoding over all prompts of the task, the "
        "median repeat; quartiles: of single prompts",
        f"the first turn of each prompt, {report.options['new_tokens']} tokens of each; the paper's are whole answers "
        f"of other models on other hardware; {PAPER_NOTE}",
    ]
    if cut:
        notes.append(f"prompts that did not fit into the model's context and lost their beginning: {cut}")
    for note in notes:
        out.print(printable(note), soft_wrap=True)


def _task_cells(row: Mapping[Any, Any]) -> list[str]:
    return [
        str(row["task"]),
        f"{row['prompts']}",
        "" if math.isnan(row["tokens_per_round"]) else f"{row['tokens_per_round']:.2f}",
        "" if math.isnan(row["acceptance_rate"]) else f"{row['acceptance_rate']:.0%}",
        f"{row['speedup']:.2f}x",
        f"{row['low']:.2f} .. {row['high']:.2f}",
        f"{row['equal']}/{row['runs']}",
    ]


def _cells(row: Mapping[Any, Any]) -> list[str]:
    def ratio(other: str) -> str:
        name = f"speed_to_{other}"
        if row["contender"] == other:
            return "1"
        if math.isnan(row[name]):
            return ""
        return f"{row[name]:.2f} ({row[f'{name}_low']:.2f} .. {row[f'{name}_high']:.2f})"

    def figure(name: str, form: str) -> str:
        return "" if math.isnan(row[name]) else form.format(row[name])

    equal = f"{row['equal']}/{row['runs']}"
    if row["equal"] < row["runs"]:
        equal += f", else from token {int(row['first_difference'])} on"
    return [
        f"{1000 * row['seconds_per_token']:.2f}",
        ratio("transformers"),
        ratio("plain"),
        equal,
        figure("acceptance_rate", "{:.0%}"),
        figure("tokens_per_round", "{:.2f}"),
        figure("mean_exit_depth", "{:.1f}"),
        figure("layer_passes_per_token", "{:.1f}"),
    ]

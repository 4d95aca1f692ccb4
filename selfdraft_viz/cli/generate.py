"""`selfdraft-viz generate`: one prompt, decoded as one watches."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfdraft_viz.cli import options as opt
from selfdraft_viz.cli.terminal import TokenPrinter, complain, console, printable, show_table
from selfdraft_viz.errors import PromptError, SettingsError
from selfdraft_viz.events import Committed, Event
from selfdraft_viz.settings import Sampling, Settings

if TYPE_CHECKING:
    from rich.console import Console

    from selfdraft_viz.model import Comparison, Model
    from selfdraft_viz.trace import Trace

_SAMPLING = "Sampling (greedy if none of these is given)"
_ROWS = {
    "new_tokens": ("new tokens", "{:d}"),
    "rounds": ("rounds", "{:d}"),
    "acceptance_rate": ("acceptance rate", "{:.1%}"),
    "tokens_per_round": ("tokens per round", "{:.2f}"),
    "mean_exit_depth": ("mean exit depth, layers", "{:.2f}"),
    "layer_passes_per_token": ("layer passes per token", "{:.2f}"),
    "exit_checks_per_token": ("exit checks per token", "{:.2f}"),
    "prefill_seconds": ("prefill, s", "{:.3f}"),
    "seconds_per_token": ("seconds per token after prefill", "{:.5f}"),
    "tokens_per_second": ("tokens per second after prefill", "{:.1f}"),
}


def generate(
    prompt: Annotated[str, typer.Argument(help="Text to go on from; - reads it from stdin.")],
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
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", "-n", help="Tokens to make at most.")] = 128,
    ignore_end: Annotated[bool, typer.Option("--ignore-end", help="Go on after an end-of-sequence token.")] = False,
    temperature: Annotated[
        float | None, typer.Option(help="Sampling temperature, above 0.", rich_help_panel=_SAMPLING)
    ] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus, 0..1.", rich_help_panel=_SAMPLING)] = None,
    top_k: Annotated[int | None, typer.Option(help="Keep the k likeliest tokens.", rich_help_panel=_SAMPLING)] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes the whole text.", rich_help_panel=_SAMPLING)] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Ordinary decoding.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Decode both ways; say whether they are equal, and the speedup.")
    ] = False,
    save: Annotated[Path | None, typer.Option(help="Save the whole trace, as a Parquet file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Decode a prompt; each token's colour says at which layer it was drafted."""
    if plain and compare:
        raise SettingsError("--plain and --compare: --compare decodes both ways, use one of the two")
    if save is not None and not save.absolute().parent.is_dir():
        raise SettingsError(f"--save {save}: there is no folder {save.absolute().parent}")
    sampling = _sampling(temperature, top_p, top_k, seed)
    text = _read_stdin() if prompt == "-" else _checked(prompt)
    loaded = opt.load_model(model, device=device, dtype=dtype, heads=heads, exit_layers=exit_layers, revision=revision)
    chosen = opt.chosen_settings(
        loaded.preset,
        settings,
        threshold=threshold,
        schedule=schedule,
        alpha=alpha,
        max_depth=max_depth,
        max_width=max_width,
        exit_layers=exit_layers,
    )
    decode: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "sampling": sampling,
        "stop_at_end": not ignore_end,
        "detail": "tokens" if save is None else "full",
    }
    stream = loaded.stream_plain(text, **decode) if plain else loaded.stream(text, chosen, **decode)
    ordinary = _decode_plain_first(loaded, text, chosen, decode) if compare else None

    out = console()
    trace = _record(loaded, stream) if as_json else _show(out, loaded, text, stream)
    interrupted = trace.finish_reason is None
    comparison = None
    if ordinary is not None and not interrupted:
        from selfdraft_viz.model import Comparison

        comparison = Comparison(trace, ordinary)
    if as_json:
        print(json.dumps(_as_data(text, trace, comparison), indent=2, allow_nan=False))
    else:
        _summarise(out, loaded, trace, comparison)
    if save is not None:
        print("trace saved:", printable(str(trace.save(save))), file=sys.stderr)
    if interrupted:
        complain("interrupted")
        raise typer.Exit(130)


def _sampling(temperature: float | None, top_p: float | None, top_k: int | None, seed: int | None) -> Sampling | None:
    typed = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": seed}
    given = {name: value for name, value in typed.items() if value is not None}
    return Sampling(**given) if given else None  # type: ignore[arg-type]


def _read_stdin() -> str:
    """All of stdin, less the newline that ends the last line of what `echo` and editors write."""
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise PromptError(f"the prompt on stdin is not UTF-8 text: {error}") from error


def _checked(prompt: str) -> str:
    """A prompt from the command line, where bytes that are no text arrive as lone surrogates."""
    if any("\ud800" <= character <= "\udfff" for character in prompt):
        raise PromptError(f"the prompt {prompt!r} is not text in the encoding of this terminal")
    return prompt


def _decode_plain_first(model: Model, prompt: str, settings: Settings, decode: dict[str, Any]) -> Trace:
    """Ordinary decoding, after a few tokens both ways, so that neither way pays for what happens only once."""
    few = {**decode, "max_new_tokens": min(8, decode["max_new_tokens"])}
    model.generate_plain(prompt, **few)
    model.generate(prompt, settings, **few)
    return model.generate_plain(prompt, **decode)


def _record(model: Model, stream: Iterator[Event], printer: TokenPrinter | None = None) -> Trace:
    """Read the stream to its end, or until it is interrupted."""
    recorder = model.recorder()
    try:
        for event in stream:
            recorder.add(event)
            if printer is not None and isinstance(event, Committed):
                printer.show(event)
    except KeyboardInterrupt:
        pass
    return recorder.trace()


def _show(out: Console, model: Model, prompt: str, stream: Iterator[Event]) -> Trace:
    from selfdraft_viz.text import Pieces

    printer = TokenPrinter(out, Pieces(model.tokenizer), model.encode(prompt), model.num_layers, model.exit_layers)
    printer.legend()
    out.out(printable(prompt), style="dim", end="", highlight=False)
    trace = _record(model, stream, printer)
    printer.finish()
    return trace


def _summarise(out: Console, model: Model, trace: Trace, comparison: Comparison | None) -> None:
    described = trace.model
    traces = [trace] if comparison is None else [trace, comparison.plain]
    summaries = [one.summary() for one in traces]
    rows = [
        [title, *(form.format(summary[name]) if summary[name] else "" for summary in summaries)]
        for name, (title, form) in _ROWS.items()
        if any(summary[name] for summary in summaries)
    ]
    out.print()
    title = f"{described['id']}: {model.num_layers} layers, {described['device']}, {described['dtype']}"
    show_table(out, title, ["", *(summary["method"] for summary in summaries)], rows)
    if trace.settings is not None:
        exits = ", ".join(map(str, trace.exit_layers))
        out.print(f"exits at {exits} ({described['heads']}); {trace.settings}", soft_wrap=True)
    if trace.finish_reason is not None:
        out.print(f"ended by: {trace.finish_reason}")
    if comparison is not None:
        out.print(str(comparison), soft_wrap=True)


def _as_data(prompt: str, trace: Trace, comparison: Comparison | None) -> dict[str, Any]:
    new = trace.tokens[trace.tokens["kind"] != "prompt"]
    data = {
        "prompt": prompt,
        "prompt_ids": trace.prompt_ids,
        "text": trace.text,
        "token_ids": trace.token_ids,
        "kinds": list(new["kind"]),
        "exit_depths": [int(depth) for depth in new["exit_depth"]],
        "summary": trace.summary(),
        "settings": None if trace.settings is None else trace.settings.to_dict(),
        "sampling": trace.sampling,
        "model": trace.model,
        "environment": trace.environment,
    }
    if comparison is not None:
        data["comparison"] = {
            "equal": comparison.equal,
            "first_difference": comparison.first_difference,
            "speedup": comparison.speedup,
            "plain": {"token_ids": comparison.plain.token_ids, "summary": comparison.plain.summary()},
        }
    return data

"""What an event means, in a sentence."""

from __future__ import annotations

from collections.abc import Callable

from selfdraft_viz import events as ev
from selfdraft_viz.plots.text import visible


def narrate(event: ev.Event, text_of: Callable[[int, int], str]) -> str:
    """One sentence, plain text.

    Args:
        text_of: the text of a token, by position and token id.
    """
    match event:
        case ev.LayersRan():
            return _ran(event)
        case ev.ExitCheck():
            token = _quoted(text_of(event.position + 1, event.token_id))
            sign, then = ("≥", "it exits, and the token is drafted") if event.exited else ("<", "it goes on")
            return (
                f"Exit check after {event.layer} layers at position {event.position}: {token} with confidence "
                f"{event.confidence:.3f} (T = {event.exit_temperature:.3g}) {sign} threshold {event.threshold:.3g}: "
                f"{then}."
            )
        case ev.DraftingStopped():
            drafts = _counted(len(event.draft_ids), "draft")
            return f"Round {event.round} stops drafting: {event.reason}. {drafts} to verify."
        case ev.Verified():
            return _verdict(event, text_of)
        case ev.Committed():
            token = _quoted(text_of(event.position, event.token_id))
            return f"Position {event.position} is final: {token} ({event.kind})."
        case ev.DecodeStarted():
            return f"A prompt of {_counted(len(event.prompt_ids), 'token')}."
        case ev.SettingsChanged():
            return "The settings that hold from here on." if event.version == 0 else "New settings hold from here on."
        case ev.SettingsRefused():
            return event.message
        case ev.DecodeFinished():
            return f"Finished after {_counted(event.new_tokens, 'new token')}."


def _ran(event: ev.LayersRan) -> str:
    layers = f"layer {event.first_layer}"
    if event.last_layer > event.first_layer:
        layers = f"layers {event.first_layer} to {event.last_layer}"
    rows = event.stop_position - event.first_position
    if event.phase == "prefill":
        return f"Prefill: {_counted(rows, 'row')} of the prompt through {layers} at once."
    if event.phase == "verification":
        return f"Verification: {_counted(rows, 'pending row')} through {layers}, in one pass."
    if event.phase == "draft" and event.catch_up_rows:
        behind = _counted(event.catch_up_rows, "earlier row")
        return f"Catch-up: {behind} carried up through {layers} together with position {event.stop_position - 1}."
    return f"Position {event.stop_position - 1} runs through {layers}."


def _verdict(event: ev.Verified, text_of: Callable[[int, int], str]) -> str:
    drafted = len(event.draft_ids)
    said = f"Round {event.round}: {event.accepted} of {_counted(drafted, 'draft')} accepted"
    place = event.first_position + event.accepted
    if event.correction is not None:
        wrong = _quoted(text_of(place, event.draft_ids[event.accepted]))
        return f"{said}; {wrong} is corrected to {_quoted(text_of(place, event.correction))}, what follows is dropped."
    if event.bonus is not None:
        return f"{said}, and the hard token comes as a bonus: {_quoted(text_of(place, event.bonus))}."
    return f"{said}."


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" + ("" if count == 1 else "s")


def _quoted(text: str) -> str:
    return f"‘{visible(text)}’"

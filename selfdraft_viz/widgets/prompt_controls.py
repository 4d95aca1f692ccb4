"""What is decoded: the prompt, how many new tokens, and how they are sampled. Fixed for a decode."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as ipw

from selfdraft_viz.errors import PromptError, SettingsError
from selfdraft_viz.settings import Sampling
from selfdraft_viz.widgets.examples import EXAMPLES

GREEDY, SAMPLED = "greedy", "sampled"
_OWN = "your own"


class PromptControls:
    """Args:
        prompt: text, or token ids where the model has no tokenizer.
        max_new_tokens: at most this many.
        sampling: None = greedy.
        has_tokenizer: else the prompt box takes token ids, separated by blanks or commas.
        has_chat_template: whether prompts can be wrapped in one.
        changed: called with the name and the value of what a control has changed.

    Attributes:
        prompt_box, sampling_box: the widgets that hold the controls.
    """

    def __init__(
        self,
        prompt: str | Sequence[int] | None,
        max_new_tokens: int,
        sampling: Sampling | None,
        has_tokenizer: bool,
        has_chat_template: bool = False,
        changed: Callable[[str, object], None] = lambda name, value: None,
    ) -> None:
        self._has_tokenizer = has_tokenizer
        self._changed = changed
        self._top_k = None if sampling is None else sampling.top_k
        self._build()
        self.chat.layout.display = None if has_chat_template else "none"
        if prompt is None:
            prompt = next(iter(EXAMPLES.values())) if has_tokenizer else "1 2 3 4"
        self.text.value = prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
        self.max_new_tokens.value = max_new_tokens
        self.set_sampling(sampling)

    def _build(self) -> None:
        self.example = ipw.Dropdown(
            options=[_OWN, *EXAMPLES],
            description="prompt",
            layout=ipw.Layout(width="320px"),
            style={"description_width": "58px"},
        )
        self.text = ipw.Textarea(
            rows=2, continuous_update=False,
            placeholder="Text to go on from" if self._has_tokenizer else "Token ids: 12 7 3",
            layout=ipw.Layout(width="100%", height="60px", margin="4px 2px"),
        )  # fmt: skip
        self.max_new_tokens = ipw.IntText(
            description="new tokens", layout=ipw.Layout(width="180px"), style={"description_width": "88px"}
        )
        self.check = ipw.Checkbox(
            True,
            description="check against ordinary decoding",
            indent=False,
            layout=ipw.Layout(width="auto", margin="2px 8px"),
        )
        self.chat = ipw.Checkbox(
            False,
            description="as a chat message",
            tooltip="Wrap the prompt in the tokenizer's chat template",
            indent=False,
            layout=ipw.Layout(width="auto", margin="2px 8px"),
        )
        self.how = ipw.ToggleButtons(
            options=[GREEDY, SAMPLED], tooltips=["Always the likeliest token", "Drawn at random, fixed by the seed"],
            style={"button_width": "104px"},
        )  # fmt: skip
        self.temperature = ipw.FloatText(1.0, description="temperature", step=0.05, **_field())
        self.top_p = ipw.FloatText(1.0, description="top_p", step=0.01, **_field())
        self.seed = ipw.IntText(0, description="seed", **_field())
        self.example.observe(self._example_chosen, "value")
        self.text.observe(self._typed, "value")
        self.how.observe(self._how_chosen, "value")
        for control, name in (
            (self.text, "prompt"),
            (self.max_new_tokens, "max_new_tokens"),
            (self.check, "check"),
            (self.chat, "chat"),
            (self.how, "sampling"),
            (self.temperature, "sampling"),
            (self.top_p, "sampling"),
            (self.seed, "sampling"),
        ):
            control.observe(lambda _, name=name: self._tell(name), "value")
        self.prompt_box = ipw.VBox(
            [
                ipw.HBox(
                    [self.example, self.max_new_tokens, self.check, self.chat], layout=ipw.Layout(flex_flow="row wrap")
                ),
                self.text,
            ],
            layout=ipw.Layout(width="100%"),
        )
        self.sampling_box = ipw.VBox([self.how, self.temperature, self.top_p, self.seed])

    @property
    def prompt(self) -> str | tuple[int, ...]:
        """
        Raises:
            PromptError: token ids were asked for, and this is something else.
        """
        if self._has_tokenizer:
            return self.text.value
        words = re.split(r"[\s,]+", self.text.value.strip())
        try:
            return tuple(int(word) for word in words if word)
        except ValueError:
            raise PromptError(
                f"the prompt {self.text.value!r} is no list of token ids: this model has no tokenizer, "
                "so give whole numbers, such as 12 7 3"
            ) from None

    @property
    def sampling(self) -> Sampling | None:
        """
        Raises:
            SettingsError: temperature, top_p or seed are out of range.
        """
        if self.how.value == GREEDY:
            return None
        top_p = None if self.top_p.value == 1 else self.top_p.value
        return Sampling(self.temperature.value, top_p, self._top_k, self.seed.value)

    def set_sampling(self, sampling: Sampling | None) -> None:
        if sampling is not None and not isinstance(sampling, Sampling):
            raise SettingsError(f"sampling={sampling!r}: give a Sampling, or None for greedy decoding")
        self.how.value = GREEDY if sampling is None else SAMPLED
        if sampling is not None:
            self.temperature.value = sampling.temperature
            self.top_p.value = 1.0 if sampling.top_p is None else sampling.top_p
            self.seed.value = sampling.seed
            self._top_k = sampling.top_k
        self._how_chosen(None)

    def lock(self, locked: bool) -> None:
        """Nothing here can change while a decode runs."""
        for control in (self.example, self.text, self.max_new_tokens, self.check, self.chat, self.how):
            control.disabled = locked
        for control in (self.temperature, self.top_p, self.seed):
            control.disabled = locked or self.how.value == GREEDY

    def _tell(self, name: str) -> None:
        """Say what has changed; what is out of range is said when a run is started."""
        with contextlib.suppress(PromptError, SettingsError):
            value = {"check": self.check.value, "chat": self.chat.value, "max_new_tokens": self.max_new_tokens.value}
            self._changed(name, value[name] if name in value else getattr(self, name))

    def _how_chosen(self, _: Any) -> None:
        for control in (self.temperature, self.top_p, self.seed):
            control.disabled = self.how.value == GREEDY

    def _example_chosen(self, change: Any) -> None:
        if change.new in EXAMPLES:
            self.text.value = EXAMPLES[change.new]

    def _typed(self, change: Any) -> None:
        name = next((name for name, prompt in EXAMPLES.items() if prompt == change.new), _OWN)
        if self.example.value != name:
            self.example.value = name


def _field() -> dict[str, Any]:
    return {"layout": ipw.Layout(width="auto"), "style": {"description_width": "92px"}}

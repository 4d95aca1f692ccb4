"""How often a near-tie between the two best tokens falls the other way, where kernels are not bitwise equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfdraft_viz.settings import Settings

if TYPE_CHECKING:
    from selfdraft_viz.model import Model


@dataclass(frozen=True)
class NearTies:
    """Self-draft decoding against ordinary decoding of the same prompts.

    Attributes:
        tokens: how many tokens were compared.
        margins: for each that differed, how far the logits of the two tokens are apart.
    """

    tokens: int
    margins: tuple[float, ...]

    @property
    def per_10000(self) -> float:
        """Tokens that differ in 10,000."""
        return 1e4 * len(self.margins) / max(1, self.tokens)


def near_ties(
    model: Model, prompts: Sequence[str | Sequence[int]], settings: Settings | None = None, *, new_tokens: int = 256
) -> NearTies:
    """Decode each prompt both ways. After a difference, self-draft decoding goes on from ordinary decoding's text, so
    that every token is compared."""
    compared, margins = 0, []
    for prompt in prompts:
        ids = list(model.encode(prompt))
        plain = model.generate_plain(ids, max_new_tokens=new_tokens, stop_at_end=False, detail="tokens").token_ids
        done = 0
        while done < new_tokens:
            drafted = model.generate(
                [*ids, *plain[:done]],
                settings,
                max_new_tokens=new_tokens - done,
                stop_at_end=False,
                detail="tokens",
            ).token_ids
            differs = next(
                (i for i, pair in enumerate(zip(drafted, plain[done:], strict=True)) if len({*pair}) > 1), None
            )
            if differs is None:
                break
            at = done + differs
            margins.append(_margin(model, [*ids, *plain[:at]], plain[at], drafted[differs]))
            done = at + 1
        compared += new_tokens
    return NearTies(compared, tuple(margins))


def _margin(model: Model, token_ids: list[int], chosen: int, other: int) -> float:
    staircase = model.layered.open(len(token_ids))
    staircase.push(token_ids[:-1])
    staircase.advance(model.num_layers)
    staircase.push(token_ids[-1:])
    staircase.advance(model.num_layers)
    logits = staircase.logits(len(token_ids) - 1, len(token_ids))[0].double()
    return abs(float(logits[chosen] - logits[other]))

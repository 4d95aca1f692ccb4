"""What the explorer costs the decode: wall time per token with it, against `model.stream` alone in the same process.

python -m selfdraft_viz.widgets.measure            # without a front end
measure_decode_loss(explorer)                      # in a notebook, with the explorer on the page
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from selfdraft_viz.widgets.explorer import Explorer


@dataclass(frozen=True)
class DecodeLoss:
    """Seconds of wall time per token, one value a repeat, taken in turn.

    Attributes:
        alone: the events of `model.stream` recorded in this thread, nothing drawn.
        explored: the same decode in the explorer, drawing included.
        frames_per_second: how often the explorer drew.
        drawing_share: of its time, spent drawing.
    """

    alone: tuple[float, ...]
    explored: tuple[float, ...]
    frames_per_second: float
    drawing_share: float

    @property
    def loss(self) -> float:
        """Share of the speed that is lost: median over the pairs of 1 - alone / explored."""
        return statistics.median(
            1 - alone / explored for alone, explored in zip(self.alone, self.explored, strict=True)
        )

    def __str__(self) -> str:
        alone, explored = (1000 * statistics.median(times) for times in (self.alone, self.explored))
        pairs = sorted(1 - a / b for a, b in zip(self.alone, self.explored, strict=True))
        return (
            f"decode loss {100 * self.loss:.1f} % (pairs {100 * pairs[0]:.1f} to {100 * pairs[-1]:.1f} %): "
            f"{alone:.2f} ms a token alone, {explored:.2f} ms in the explorer, "
            f"{self.frames_per_second:.1f} frames a second, "
            f"{100 * self.drawing_share:.1f} % of the time spent drawing"
        )


def measure_decode_loss(explorer: Explorer, repeats: int = 7) -> DecodeLoss:
    """Decode what the controls say, `repeats` times alone and in the explorer, in turn, after a pair to warm up."""
    check, explorer.check = explorer.check, False
    alone: list[float] = []
    explored: list[float] = []
    frames, drawing = 0, 0.0
    try:
        for repeat in range(repeats + 1):
            first = _alone(explorer) if repeat % 2 else None
            seconds, drawn, spent = _explored(explorer)
            without = _alone(explorer) if first is None else first
            if repeat:  # the first pair warms up
                alone.append(without)
                explored.append(seconds)
                frames += drawn
                drawing += spent
    finally:
        explorer.check = check
    assert explorer.trace is not None
    total = sum(explored) * len(explorer.trace.token_ids)
    return DecodeLoss(tuple(alone), tuple(explored), frames / total, drawing / total)


def _alone(explorer: Explorer) -> float:
    recorder = explorer.model.recorder()
    begun = time.perf_counter()
    stream = explorer.model.stream(
        explorer.prompt, explorer.settings, max_new_tokens=explorer.max_new_tokens, sampling=explorer.sampling
    )
    for event in stream:
        recorder.add(event)
    seconds = time.perf_counter() - begun
    return seconds / len(recorder.trace().token_ids)


def _explored(explorer: Explorer) -> tuple[float, int, float]:
    explorer.run()
    explorer.wait()
    assert explorer._session is not None
    run = explorer._session.run
    assert run.decoded_at is not None
    tokens = explorer._session.tables.new_tokens
    return (run.decoded_at - run.started_at) / tokens, run.frames, run.drawing_seconds


def main() -> None:
    import selfdraft_viz as sv

    print(measure_decode_loss(sv.Explorer(sv.load(), max_new_tokens=128)))


if __name__ == "__main__":
    main()

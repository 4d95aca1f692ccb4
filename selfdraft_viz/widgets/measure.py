"""What the explorer costs the decode: its time per token with it, against `model.stream` alone in the same process.

    python -m selfdraft_viz.widgets.measure            # without a front end
    measure_decode_loss(explorer)                      # in a notebook, with the explorer on the page

Two clocks. Wall time is what a person waits for, but where browser, kernel and others share the cores, it charges the
kernel for what the others take. Processor time of the whole kernel process, all its threads, leaves the browser out.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

from selfdraft_viz.model import Model
from selfdraft_viz.widgets.explorer import Explorer


@dataclass(frozen=True)
class Cost:
    """Of one decode, in seconds per token."""

    wall: float
    processor: float


@dataclass(frozen=True)
class DecodeLoss:
    """Decodes taken in turn, one pair a repeat.

    Attributes:
        alone: the events of `model.stream` recorded in this thread, nothing drawn.
        explored: the same decode in the explorer, drawing included.
        frames_per_second: how often the explorer drew.
        drawing_share: of its wall time, spent drawing.
    """

    alone: tuple[Cost, ...]
    explored: tuple[Cost, ...]
    frames_per_second: float
    drawing_share: float

    @property
    def wall(self) -> float:
        """Share of the speed that is lost, by wall time: median over the pairs of 1 - alone / explored."""
        return statistics.median(self._pairs("wall"))

    @property
    def processor(self) -> float:
        """The same by processor time of the kernel process."""
        return statistics.median(self._pairs("processor"))

    def _pairs(self, clock: str) -> list[float]:
        pairs = zip(self.alone, self.explored, strict=True)
        return [1 - getattr(alone, clock) / getattr(explored, clock) for alone, explored in pairs]

    def __str__(self) -> str:
        lines = []
        for clock in ("processor", "wall"):
            alone, explored = (
                1000 * statistics.median(getattr(cost, clock) for cost in costs)
                for costs in (self.alone, self.explored)
            )
            pairs = sorted(self._pairs(clock))
            lines.append(
                f"decode loss by {clock} time: {100 * statistics.median(pairs):.1f} % (pairs {100 * pairs[0]:.1f} to "
                f"{100 * pairs[-1]:.1f} %); {alone:.2f} ms a token alone, {explored:.2f} ms in the explorer"
            )
        lines.append(
            f"{self.frames_per_second:.1f} frames a second, {100 * self.drawing_share:.1f} % of the time spent drawing"
        )
        return "\n".join(lines)


def measure_decode_loss(explorer: Explorer, repeats: int = 7) -> DecodeLoss:
    """Decode what the controls say, `repeats` times alone and in the explorer, in turn, after a pair to warm up."""
    check, explorer.check = explorer.check, False
    alone: list[Cost] = []
    explored: list[Cost] = []
    frames, drawing, seconds = 0, 0.0, 0.0
    try:
        for repeat in range(repeats + 1):
            first = _alone(explorer) if repeat % 2 else None
            cost, drawn, spent, took = _explored(explorer)
            without = _alone(explorer) if first is None else first
            if repeat:  # the first pair warms up
                alone.append(without)
                explored.append(cost)
                frames, drawing, seconds = frames + drawn, drawing + spent, seconds + took
    finally:
        explorer.check = check
    return DecodeLoss(tuple(alone), tuple(explored), frames / seconds, drawing / seconds)


def _alone(explorer: Explorer) -> Cost:
    recorder = explorer.model.recorder()
    wall, processor = time.perf_counter(), time.process_time()
    stream = explorer.model.stream(
        explorer.prompt, explorer.settings, max_new_tokens=explorer.max_new_tokens, sampling=explorer.sampling
    )
    for event in stream:
        recorder.add(event)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    tokens = len(recorder.trace().token_ids)
    return Cost(wall / tokens, processor / tokens)


def _explored(explorer: Explorer) -> tuple[Cost, int, float, float]:
    processor = time.process_time()
    explorer.run()
    explorer.wait()
    processor = time.process_time() - processor
    assert explorer._session is not None
    run, tokens = explorer._session.run, explorer._session.tables.new_tokens
    assert run.decoded_at is not None
    wall = run.decoded_at - run.started_at
    return Cost(wall / tokens, processor / tokens), run.frames, run.drawing_seconds, wall


def deep_model(num_layers: int = 64, width: int = 128) -> Model:
    """A random model as deep as large ones: its later layers hardly turn the hidden states, so that drafts stand."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    import selfdraft_viz as sv

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        eos_token_id=None,
    )
    base: Any = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for layer in base.model.layers[num_layers // 8 :]:
            layer.self_attn.o_proj.weight *= 0.08
            layer.mlp.down_proj.weight *= 0.08
    return sv.load(base, exit_layers=[num_layers // 16, num_layers // 8, num_layers // 4, num_layers // 2])


def main() -> None:
    import selfdraft_viz as sv

    print("tales-14m, 128 tokens")
    print(measure_decode_loss(sv.Explorer(sv.load(), max_new_tokens=128)))
    settings = sv.Settings(threshold=0.0006, max_width=6)
    explorer = sv.Explorer(deep_model(), prompt=[1, 2, 3, 4], settings=settings, max_new_tokens=512)
    print("64 layers, 512 tokens")
    print(measure_decode_loss(explorer, repeats=3))


if __name__ == "__main__":
    main()

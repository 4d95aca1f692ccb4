"""The words of self-draft decoding, each explained in a sentence or two. The views show them on hover."""

from __future__ import annotations

GLOSSARY: dict[str, str] = {
    "acceptance rate": (
        "Accepted drafts / all drafts. High: the exits can be trusted; 100 % may mean that they dare too little."
    ),
    "accepted": "A draft that equals the true token: it stays, and its value came from its exit layer.",
    "annealing": (
        "Exit temperatures that fall towards 1 with depth: hot in the shallow layers, which are often confidently "
        "wrong."
    ),
    "annealing strength": (
        "α in T = 1 + α (1 - l / L): 0 is no annealing, 1 doubles the temperature at depth 0, below 0 makes exits "
        "bolder."
    ),
    "bonus": (
        "The true token after the last draft, when all drafts stood and drafting had stopped at a hard token: it "
        "costs nothing more."
    ),
    "catch-up": (
        "Earlier rows that stopped at a shallower layer, carried up together with the newest row, because a layer "
        "needs the keys and values of all earlier positions."
    ),
    "confidence": (
        "The largest probability at an exit, after the logits are divided by its exit temperature: max softmax(z / T)."
    ),
    "correction": "The true token in place of the first draft that was wrong.",
    "draft": "A token guessed at an exit layer, not yet verified.",
    "dropped": "A draft after a wrong one: whatever it was, it was guessed from a wrong text.",
    "exit": (
        "A position exits at the first exit layer whose confidence reaches the threshold; its likeliest token there "
        "becomes a draft."
    ),
    "exit check": (
        "An exit head reads the hidden state after some layers, and its confidence is held against the threshold. It "
        "costs time too."
    ),
    "exit depth": "How many layers a token's value came from: the exit layer of an accepted draft, else all L.",
    "exit head": (
        "What turns a hidden state after few layers into logits over the vocabulary: the model's own last norm and LM "
        "head (the logit lens), or a trained one."
    ),
    "exit layer": "A layer after which a position may exit.",
    "exit temperature": (
        "T: what an exit's logits are divided by before its confidence is taken. Above 1 it lowers the confidence, "
        "below 1 it raises it; the likeliest token stays the same."
    ),
    "first": "The first new token: the output of the prompt's last row.",
    "front": "How many layers each row has been through: what has been computed is a staircase.",
    "greedy": "Always the likeliest token.",
    "hard token": "A token that no exit was sure enough about: drafting stops there, and verification gives its value.",
    "layer pass": "One layer run once, over however many rows: what memory-bound hardware pays for.",
    "layer passes per token": (
        "Layers run per new token, each once over however many rows; the prompt and the first token are left out. "
        "Ordinary decoding has exactly L."
    ),
    "logit lens": (
        "An exit head that needs no training: the model's own last norm and LM head on an early hidden state."
    ),
    "max_depth": "The deepest exit layer that is tried.",
    "max_width": "The most tokens drafted in a round.",
    "mean exit depth": "Layers, over drafted tokens.",
    "ordinary decoding": (
        "Every token through every layer, one after the other. Self-draft decoding gives the same tokens."
    ),
    "prefill": "The prompt through all layers at once.",
    "rejected": "The first draft of a round that differs from the true token.",
    "round": "Draft token after token, then verify all drafts at once.",
    "row": "One position on its way up through the layers. Row i predicts token i + 1.",
    "schedule": "The exit temperatures over depth.",
    "seed": "Fixes the random draws: the same seed gives the same text, however it is drafted.",
    "speedup": (
        "Ordinary seconds per token / self-draft seconds per token, both measured on this prompt in this process."
    ),
    "staircase": (
        "Layers by tokens: what has been computed so far. Drafting fills the low layers, verification the rest."
    ),
    "temperature": "Of sampling: divides the logits before a token is drawn. Not an exit temperature.",
    "threshold": "The confidence from which on a position exits. High is careful, low is bold.",
    "tokens per round": "Committed tokens / rounds (the papers' compression ratio).",
    "tokens per second": "Over decoding time; drawing and pauses are left out.",
    "top_p": "Sampling keeps the likeliest tokens that together reach this probability.",
    "verification": (
        "All pending rows through the remaining layers in one pass; the last layer says what the true tokens are."
    ),
    "why drafting stopped": (
        "Hard token: no exit was sure enough. Width: max_width drafts. Length: as many as are still allowed. End of "
        "sequence: the text was drafted to its end."
    ),
}


def explain(*terms: str) -> list[list[str]]:
    """(term, explanation) pairs.

    Raises:
        KeyError: a term that is not in the glossary.
    """
    return [[term, GLOSSARY[term]] for term in terms]

"""Prompts to start from."""

from __future__ import annotations

EXAMPLES: dict[str, str] = {
    "a story": "Once upon a time, there was a little girl named Lily. She",
    "a story with a ball": "One day, Tom and his dog went to the park. Tom threw the ball and",
    "a fairy tale": "There was once a poor woodcutter who lived with his wife and his three daughters in a",
    "a tale with dialogue": (
        '"Whither are you going?" asked the old woman.\n"I am going to the king\'s palace," said the youngest son, "to'
    ),
    "code: a loop": (
        'def count_words(text):\n    """Count how often each word occurs."""\n    counts = {}\n    for word in'
    ),
    "code: a class": "import os\n\nclass Reader:\n    def __init__(self, path):\n        self.path = path\n\n    def",
    "repetitive": "one two three, one two three, one two three, one two",
    "hard: a list of names": "Anna, Boris, Chiara, Dmitri, Edith, Farid,",
    "markup is only text": "The page said <img src=x onerror=alert(1)> and $x^2$ and then",
}
"""Name -> prompt: simple stories, old tales and code, and two that behave unlike them."""

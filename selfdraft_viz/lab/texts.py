"""Documents and prompts from files, and the short prompts that come with the package. No torch here.

Files that are read: `.txt` (one document), `.jsonl` and `.jsonl.xz` (one document a line: a JSON string, or an object
with a `text`, a `prompt`, or Spec-Bench's `turns`), `.json` (a list of such objects, or an object with a list
`prompts`).
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from selfdraft_viz.errors import LoadError, PromptError

_SUFFIXES = (".txt", ".jsonl", ".jsonl.xz", ".json")


@dataclass(frozen=True)
class Prompt:
    """A prompt of a bench.

    Attributes:
        kind: what is compared kind by kind, such as "stories".
        text: the prompt; token ids for a model without a tokenizer.
        source: where it is from.
    """

    kind: str
    text: str | tuple[int, ...]
    source: str = ""


def shipped_prompts(kinds: Sequence[str] | None = None, per_kind: int | None = None) -> list[Prompt]:
    """The prompts that come with the package; arguments as for `choose_prompts`."""
    path = Path(str(files("selfdraft_viz"))) / "assets" / "prompts.json"
    return choose_prompts(read_prompts(path), kinds, per_kind)


def read_prompts(path: str | Path) -> list[Prompt]:
    """The prompts of a file; a prompt's kind is its `kind` or `category`, else the file's name.

    Raises:
        LoadError: the file is missing, of another form, or holds no prompt.
    """
    path = Path(path)
    prompts = [
        Prompt(
            str(record.get("kind") or record.get("category") or _stem(path)),
            record["text"],
            str(record.get("source", "")),
        )
        for record in _records(path)
    ]
    if not prompts:
        raise LoadError(f"{path} holds no prompts")
    return prompts


def choose_prompts(
    prompts: Sequence[Prompt], kinds: Sequence[str] | None = None, per_kind: int | None = None
) -> list[Prompt]:
    """The first `per_kind` prompts of each of `kinds`, kind by kind; None = all of them.

    Raises:
        PromptError: a kind has no prompts, or fewer than one a kind are asked for.
    """
    there = list(dict.fromkeys(prompt.kind for prompt in prompts))
    unknown = [kind for kind in kinds or () if kind not in there]
    if unknown:
        raise PromptError(f"no prompts of kind {unknown[0]!r}: there are {', '.join(there)}")
    if per_kind is not None and per_kind < 1:
        raise PromptError(f"{per_kind} prompts a kind: use at least 1")
    chosen = []
    for kind in dict.fromkeys(kinds or there):
        chosen += [prompt for prompt in prompts if prompt.kind == kind][:per_kind]
    return chosen


def read_texts(path: str | Path) -> list[str]:
    """Every document of a file, or of the readable files of a folder and its subfolders in the order of their names.

    Raises:
        LoadError: nothing is there, nothing of it can be read, or a file is damaged.
    """
    path = Path(path)
    if not path.is_dir():
        return [record["text"] for record in _records(path)]
    found = sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(_SUFFIXES))
    if not found:
        raise LoadError(f"no {', '.join(_SUFFIXES)} file in the folder {path}")
    return [record["text"] for file in found for record in _records(file)]


def _records(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise LoadError(f"there is no file {path}")
    if not path.name.endswith(_SUFFIXES):
        raise LoadError(f"{path}: texts are read from {', '.join(_SUFFIXES)} files")
    try:
        if path.suffix == ".txt":
            yield {"text": path.read_text(encoding="utf-8")}
        elif path.suffix == ".json":
            data = json.loads(path.read_text(encoding="utf-8"))
            items = data.get("prompts") if isinstance(data, dict) else data
            if not isinstance(items, list):
                raise LoadError(f"{path}: expected a list, or an object with a list `prompts`")
            for number, item in enumerate(items, 1):
                yield _record(item, f"{path}, entry {number}")
        else:
            opener = lzma.open if path.suffix == ".xz" else open
            with opener(path, "rt", encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield _record(json.loads(line), f"{path}, line {number}")
    except (json.JSONDecodeError, UnicodeDecodeError, lzma.LZMAError, EOFError) as error:
        raise LoadError(f"{path} is damaged, or not what its name says: {error}") from error


def _record(item: Any, where: str) -> dict[str, Any]:
    record = {"text": item} if isinstance(item, str) else item
    if isinstance(record, dict):
        text = record.get("text", record.get("prompt"))
        turns = record.get("turns")
        if text is None and isinstance(turns, list) and turns:
            text = turns[0]
        if isinstance(text, str):
            return {**record, "text": text}
    raise LoadError(f"{where}: expected a JSON string, or an object with a `text` (or `prompt`, or `turns`)")


def _stem(path: Path) -> str:
    return path.name.removesuffix(".xz").rsplit(".", 1)[0]

"""Documents and prompts from files."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest

import selfdraft_viz as sv
from selfdraft_viz.lab.texts import Prompt, choose_prompts, read_prompts, read_texts, shipped_prompts


def test_shipped_prompts_are_short_and_four_or_more_of_each_kind(embedded: sv.Model) -> None:
    prompts = shipped_prompts()
    kinds = [prompt.kind for prompt in prompts]
    assert list(dict.fromkeys(kinds)) == ["stories", "tales", "python"]
    assert all(kinds.count(kind) >= 4 for kind in set(kinds))
    assert all(150 <= len(prompt.text) <= 250 and prompt.source for prompt in prompts)
    assert len({prompt.text for prompt in prompts}) == len(prompts)
    assert all(len(embedded.encode(prompt.text)) + 128 <= embedded.context_length for prompt in prompts)


def test_prompts_are_chosen_by_kind_in_order() -> None:
    prompts = [Prompt("b", "1"), Prompt("a", "2"), Prompt("b", "3"), Prompt("b", "4")]
    assert [prompt.text for prompt in choose_prompts(prompts, ["a", "b"], 2)] == ["2", "1", "3"]
    assert [prompt.text for prompt in choose_prompts(prompts)] == ["1", "3", "4", "2"]
    with pytest.raises(sv.PromptError, match="there are b, a"):
        choose_prompts(prompts, ["c"])
    with pytest.raises(sv.PromptError, match="at least 1"):
        choose_prompts(prompts, None, 0)


def test_prompts_are_read_in_every_form(tmp_path: Path) -> None:
    lines = [
        "a plain string",
        {"kind": "story", "text": "a text", "source": "me"},
        {"question_id": 1, "category": "maths", "turns": ["first turn", "second"]},
        {"prompt": "a prompt"},
    ]
    expected = [
        Prompt("own", "a plain string"),
        Prompt("story", "a text", "me"),
        Prompt("maths", "first turn"),
        Prompt("own", "a prompt"),
    ]
    joined = "\n".join(json.dumps(line) for line in lines) + "\n\n"
    (tmp_path / "own.jsonl").write_text(joined, encoding="utf-8")
    (tmp_path / "own.jsonl.xz").write_bytes(lzma.compress(joined.encode()))
    (tmp_path / "own.json").write_text(json.dumps(lines), encoding="utf-8")
    for name in ("own.jsonl", "own.jsonl.xz", "own.json"):
        assert read_prompts(tmp_path / name) == expected
    (tmp_path / "own.json").write_text(json.dumps({"about": "", "prompts": lines}), encoding="utf-8")
    assert read_prompts(tmp_path / "own.json") == expected
    (tmp_path / "own.txt").write_text("one\n\nprompt\u00e9", encoding="utf-8")
    assert read_prompts(tmp_path / "own.txt") == [Prompt("own", "one\n\nprompt\u00e9")]


def test_a_folder_is_read_whole_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("second", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('"first"\n{"text": "and this"}\n', encoding="utf-8")
    (tmp_path / "sub" / "c.txt").write_text("third", encoding="utf-8")
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    assert read_texts(tmp_path) == ["first", "and this", "second", "third"]
    assert read_texts(tmp_path / "a.jsonl") == ["first", "and this"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.txt", None, "no file"),
        ("image.png", b"\x89PNG", r"\.txt"),
        ("latin.txt", b"caf\xe9", "damaged"),
        ("broken.jsonl", b'{"text": ', "damaged"),
        ("broken.jsonl.xz", b"not xz", "damaged"),
        ("cut.jsonl.xz", lzma.compress(b'"text"\n' * 1000)[:-20], "damaged"),
        ("no_text.jsonl", b'{"story": "x"}\n', "line 1"),
        ("number.json", b"3", "list"),
        ("object.json", b'{"text": "x"}', "list"),
        ("entry.json", b"[3]", "entry 1"),
        ("empty.jsonl", b"\n", "no prompts"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(sv.LoadError, match=words) as refused:
        read_prompts(tmp_path / name)
    assert name in str(refused.value)


def test_a_folder_without_texts_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(sv.LoadError, match="folder"):
        read_texts(tmp_path)

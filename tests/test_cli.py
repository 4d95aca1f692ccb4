"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import selfdraft_viz as sv
from selfdraft_viz.cli import main
from selfdraft_viz.cli.notebooks import FIRST
from selfdraft_viz.cli.options import chosen_settings, read_schedule
from selfdraft_viz.cli.terminal import TokenPrinter, printable
from selfdraft_viz.events import Committed
from selfdraft_viz.text import Pieces

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
torch.set_num_threads(1)  # two threads that wait for each other on a busy machine take many times as long
PROMPT = "Once upon a time, there was a little"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process: exit status, stdout, stderr."""

    def run_it(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return run_it


def python(*arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def test_json_holds_what_the_library_decodes(run: Run, embedded: sv.Model) -> None:
    status, out, _ = run("generate", PROMPT, "-n", "12", "--device", "cpu", "--json")
    data = json.loads(out)
    trace = embedded.generate(PROMPT, max_new_tokens=12)
    assert status == 0
    assert data["token_ids"] == trace.token_ids
    assert data["prompt_ids"] == trace.prompt_ids
    assert data["text"] == trace.text
    assert data["exit_depths"] == list(trace.tokens["exit_depth"].dropna())
    assert sv.Settings.from_dict(data["settings"]) == embedded.preset
    assert data["summary"]["new_tokens"] == 12
    assert data["model"] == trace.model


def test_options_reach_the_decode(run: Run) -> None:
    typed = "--threshold 0.3 --schedule cosine --alpha 0.5 --max-depth 4 --max-width none --exit-layers 2,4,6"
    sampling = "--temperature 0.7 --top-p 0.9 --top-k 40 --seed 5"
    heads = ("--heads", "logit lens", "--device", "cpu", "--dtype", "float64")
    _, out, _ = run("generate", PROMPT, "-n", "6", "--json", *heads, *typed.split(), *sampling.split())
    data = json.loads(out)
    model = sv.load(device="cpu", dtype="float64", exit_layers=[2, 4, 6], heads="logit lens")
    policy = model.preset.policy  # which no option changes
    settings = sv.Settings(sv.CosineAnnealing(0.5), 0.3, max_depth=4, max_width=None, policy=policy)
    trace = model.generate(PROMPT, settings, max_new_tokens=6, sampling=sv.Sampling(0.7, 0.9, 40, 5))
    assert sv.Settings.from_dict(data["settings"]) == settings
    assert data["sampling"] == {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "seed": 5}
    assert data["token_ids"] == trace.token_ids
    assert data["model"]["dtype"] == "float64"


def test_text_and_summary_are_printed(run: Run, embedded: sv.Model) -> None:
    status, out, _ = run("generate", PROMPT, "-n", "10", "--device", "cpu")
    assert status == 0
    assert out.startswith(PROMPT + embedded.generate(PROMPT, max_new_tokens=10).text + "\n")
    assert re.search(r"new tokens +10", out)
    assert "layer passes per token" in out


def test_plain_is_ordinary_decoding(run: Run, embedded: sv.Model) -> None:
    _, out, _ = run("generate", PROMPT, "-n", "8", "--device", "cpu", "--plain", "--json")
    data = json.loads(out)
    assert data["summary"]["method"] == "plain"
    assert set(data["kinds"]) == {"first", "plain"}
    assert data["token_ids"] == embedded.generate_plain(PROMPT, max_new_tokens=8).token_ids


def test_compare_says_whether_both_ways_are_equal(run: Run) -> None:
    common = ("generate", PROMPT, "-n", "10", "--device", "cpu", "--dtype", "float64", "--compare")
    _, out, _ = run(*common, "--json")
    data = json.loads(out)
    assert data["comparison"]["equal"] is True
    assert data["comparison"]["first_difference"] is None
    assert data["comparison"]["speedup"] > 0
    assert data["comparison"]["plain"]["token_ids"] == data["token_ids"]
    _, out, _ = run(*common)
    assert "equal: all 10 new tokens are those of ordinary decoding" in out


def test_saved_trace_loads(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    _, out, err = run("generate", PROMPT, "-n", "6", "--device", "cpu", "--json", "--save", str(path))
    assert sv.Trace.load(path).token_ids == json.loads(out)["token_ids"]
    assert len(sv.Trace.load(path).layer_passes) > 0
    assert str(path) in err


def test_prompt_from_stdin_loses_only_its_last_newline() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "selfdraft_viz", "generate", "-", "-n", "2", "--device", "cpu", "--json"],
        input="one\ntwo \u00e9\n".encode(),
        capture_output=True,
        check=True,
        env=ENVIRONMENT,
    )
    assert json.loads(process.stdout)["prompt"] == "one\ntwo \u00e9"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("generate", ""), "prompt is empty"),
        (("generate", "hi", "-n", "0"), "max_new_tokens=0"),
        (("generate", "hi", "-n", "5000"), "context"),
        (("generate", "hi", "--threshold", "2"), "0..1"),
        (("generate", "hi", "--threshold", "high"), "not a number"),
        (("generate", "hi", "--max-depth", "99"), "1..15"),
        (("generate", "hi", "--max-width", "0"), "at least 1"),
        (("generate", "hi", "--exit-layers", "2,2"), "repeats 2"),
        (("generate", "hi", "--exit-layers", "2,x"), "not a whole number"),
        (("generate", "hi", "--schedule", "hot"), "exponential"),
        (("generate", "hi", "--schedule", "linear:1,2"), "takes alpha"),
        (("generate", "hi", "--schedule", "constant:1.5", "--alpha", "1"), "no annealing strength"),
        (("generate", "hi", "--alpha", "nan"), "alpha=nan"),
        (("generate", "hi", "--temperature", "0"), "temperature=0"),
        (("generate", "hi", "--model", "./nowhere"), "config.json"),
        (("generate", "hi", "--heads", "nowhere.safetensors"), "no exit heads"),
        (("generate", "hi", "--settings", "nowhere.json"), "nowhere.json"),
        (("generate", "hi", "--plain", "--compare"), "use one of the two"),
        (("generate", "hi", "--save", "nowhere/run.parquet"), "there is no folder"),
        (("generate", "\udcff"), "not text"),
        (("bench", "--kinds", "poems"), "stories, tales, python"),
        (("bench", "--contenders", "medusa"), "choose from"),
        (("bench", "--repeats", "0"), "repeats=0"),
        (("bench", "--order", "random"), "rotated"),
        (("bench", "--prompts", "nowhere.json"), "no file"),
        (("bench", "--threads", "0"), "at least 1"),
        (("bench", "--early-exit-layers", "16", "--per-kind", "1"), "1..15"),
        (("train-heads", "out", "--texts", "nowhere.txt"), "no file"),
        (("train-heads", "out", "--loss", "mse", "--texts", str(ROOT / "README.md")), ".txt"),
        (("notebooks", "--folder", str(ROOT / "pyproject.toml")), "is a file"),
    ],
)
def test_bad_input_is_one_readable_line(run: Run, arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        status, out, err = run(*arguments)
    finally:
        os.chdir(before)
    assert status == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
    assert list(tmp_path.iterdir()) == []


def test_unknown_options_are_refused(run: Run) -> None:
    status, _, err = run("generate", "hi", "--depth", "3")
    assert status == 2
    assert "--depth" in err


@pytest.mark.parametrize("arguments", [[], ["generate"], ["train-heads"], ["bench"], ["notebooks"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """`--help` answers at once: torch alone takes seconds."""
    code = (
        "import sys\nfrom selfdraft_viz.cli import main\n"
        f"try:\n    main({[*arguments, '--help']!r})\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "print('heavy:', sorted({'torch', 'transformers', 'pandas', 'plotly', 'numpy'} & set(sys.modules)))"
    )
    out, err = python("-c", code).communicate(timeout=60)
    assert "Usage" in out, err
    assert "heavy: []" in out


def test_version(run: Run) -> None:
    assert run("--version")[:2] == (0, f"{sv.__version__}\n")


def test_decoding_needs_no_plots_and_no_widgets() -> None:
    """A bare server has neither; the colours come from the plots, so there are none, even where they are asked for."""
    code = (
        "import sys\nsys.modules['plotly'] = sys.modules['ipywidgets'] = sys.modules['anywidget'] = None\n"
        f"from selfdraft_viz.cli import main\nmain(['generate', {PROMPT!r}, '-n', '4', '--device', 'cpu'])"
    )
    code = "import os\nos.environ['FORCE_COLOR'] = '1'\n" + code
    process = python("-c", code)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert PROMPT in out
    assert "exit depth, layers:" not in out


SECRETS = "\x1b[31mred\x1b[0m\x9b5n\r\x07\b \u202eback [bold]not markup[/bold] :smile: \u200bend"


def test_control_characters_and_markup_are_shown_not_interpreted(run: Run) -> None:
    _, out, _ = run("generate", SECRETS, "-n", "2", "--device", "cpu")
    assert r"\x1b[31mred\x1b[0m\x9b5n\r\x07\x08 \u202eback [bold]not markup[/bold] :smile: \u200bend" in out
    assert not set(out) & set("\x1b\x9b\r\x07\b\u202e\u200b")
    _, _, err = run("generate", "hi", "--model", "./\x1b[31mnowhere [bold]")
    assert "\x1b" not in err
    assert "nowhere [bold]" in err


def test_a_models_control_characters_are_escaped(embedded: sv.Model) -> None:
    """A model can say anything, byte by byte."""
    token_ids = embedded.encode("a\x1b]0;title\x07 [red]b[/red]\u00e9")
    console = Console(force_terminal=True, color_system="truecolor", width=200, markup=False, highlight=False)
    with console.capture() as captured:
        printer = TokenPrinter(console, Pieces(embedded.tokenizer), token_ids[:1], embedded.num_layers, [2])
        for position, token_id in enumerate(token_ids[1:], 1):
            printer.show(Committed(position, token_id, "accepted", 0, 2, 0.9, 0.0))
        printer.finish()
    colours = r"\x1b\[[0-9;]*m"
    assert re.sub(colours, "", captured.get()) == "a\\x1b]0;title\\x07 [red]b[/red]\u00e9\n"


@given(st.text())
def test_printable_text_has_no_control_characters(text: str) -> None:
    shown = printable(text)
    assert all(character.isprintable() or character in "\n\t\u200c\u200d" or character.isspace() for character in shown)
    if text.isprintable():
        assert shown == text


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_terminal_shows_exit_depth_by_colour_with_a_legend() -> None:
    shown = in_a_terminal("generate", PROMPT, "-n", "8", "--device", "cpu", "--threshold", "0", "--exit-layers", "2,4",
                          "--heads", "logit lens")  # fmt: skip
    legend, text = shown.split("\r\n")[:2]
    backgrounds = re.findall(r"48;2;\d+;\d+;\d+m ([24]) ", legend)
    assert backgrounds == ["2", "4"]
    (colour,) = re.findall(r"(48;2;\d+;\d+;\d+)m 2 ", legend)
    assert colour in text, "at threshold 0 every accepted draft left at exit 2"


def in_a_terminal(*arguments: str) -> str:
    terminal, theirs = pty.openpty()
    environment = {**ENVIRONMENT, "TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "120"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "selfdraft_viz", *arguments], stdout=theirs, stdin=theirs, env=environment
    )
    os.close(theirs)
    read = b""
    try:
        while piece := os.read(terminal, 65536):
            read += piece
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    return read.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupt_ends_with_the_summary_so_far() -> None:
    process = python("-m", "selfdraft_viz", "generate", PROMPT, "-n", "900", "--ignore-end", "--device", "cpu")
    assert process.stdout is not None
    start = process.stdout.read(len(PROMPT) + 20)  # it is decoding
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=60)
    assert start.startswith(PROMPT)
    assert process.returncode == 130
    assert "error: interrupted" in err
    assert "Traceback" not in err
    made = re.search(r"new tokens +(\d+)", rest)
    assert made is not None
    assert 0 < int(made[1]) < 900


layer_temperatures = st.dictionaries(st.integers(1, 9), st.floats(0.1, 9), min_size=1, max_size=4)


@given(
    st.one_of(
        st.just(sv.NoAnnealing()),
        st.builds(sv.ConstantTemperature, st.floats(0.1, 9)),
        st.builds(sv.LinearAnnealing, st.floats(-0.9, 9)),
        st.builds(sv.CosineAnnealing, st.floats(-0.9, 9)),
        st.builds(sv.ExponentialAnnealing, st.floats(-0.9, 9), st.floats(0.1, 9)),
        st.builds(sv.PerLayerTemperature, layer_temperatures),
    )
)
def test_every_schedule_can_be_typed(schedule: sv.Schedule) -> None:
    data = schedule.to_dict()
    kind = data.pop("kind").replace(" ", "-")
    if isinstance(schedule, sv.PerLayerTemperature):
        typed = ",".join(f"{layer}={value!r}" for layer, value in schedule.values.items())
    else:
        typed = ",".join(repr(value) for value in data.values())
    assert read_schedule(f"{kind}:{typed}") == schedule


def test_what_is_typed_changes_the_preset_and_nothing_else(tmp_path: Path) -> None:
    preset = sv.Settings(sv.CosineAnnealing(2.0), 0.4, max_depth=6, max_width=3)
    nothing = {"threshold": None, "schedule": None, "alpha": None, "max_depth": None, "max_width": None}
    nothing["exit_layers"] = None
    assert chosen_settings(preset, None, **nothing) == preset
    assert chosen_settings(preset, None, **{**nothing, "alpha": 0.5}) == preset.replace(
        schedule=sv.CosineAnnealing(0.5)
    )
    assert chosen_settings(preset, None, **{**nothing, "threshold": "never"}) == preset.replace(threshold=sv.NEVER)
    assert chosen_settings(preset, None, **{**nothing, "max_depth": "none"}) == preset.replace(max_depth=None)
    fewer = preset.replace(exit_layers=(2, 6))
    assert chosen_settings(fewer, None, **nothing) == fewer
    assert chosen_settings(fewer, None, **{**nothing, "exit_layers": "2,4,6"}) == preset
    file = tmp_path / "settings.json"
    sv.Settings(threshold=0.9).save(file)
    assert chosen_settings(preset, file, **nothing) == sv.Settings(threshold=0.9)


def test_trained_heads_are_saved_and_used(run: Run, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("Once upon a time there was a small house by the sea. " * 40, encoding="utf-8")
    small = ("--steps", "2", "--batch-size", "2", "--window", "16", "--exit-layers", "3,5", "--device", "cpu")
    small += ("--vocabulary", "10")
    status, out, err = run("train-heads", str(tmp_path / "heads"), "--texts", str(texts), *small)
    assert status == 0, err
    assert re.search(r"3 +\d+\.\d% +\d+\.\d%", out)
    heads = sv.ExitHeads.load(tmp_path / "heads")
    assert heads.exit_layers == (3, 5)
    assert heads.metadata["training"]["steps_done"] == 2
    assert heads.vocabulary is not None
    assert len(heads.vocabulary) == 10
    _, out, _ = run("generate", PROMPT, "-n", "4", "--device", "cpu", "--json", "--heads", str(tmp_path / "heads"))
    assert json.loads(out)["model"]["heads"] == "trained"


def test_bench_runs_every_contender(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    small = ("--kinds", "stories", "--per-kind", "2", "-n", "8", "--repeats", "1", "--early-exit-layers", "4")
    status, out, err = run("bench", *small, "--device", "cpu", "--output", str(file))
    assert status == 0, err
    data = json.loads(file.read_text(encoding="utf-8"))
    assert set(data["contenders"]) == {"transformers", "early-exit", "prompt-lookup", "plain", "self-draft"}
    assert data["left_out"] == {}
    assert len(data["runs"]) == 2 * 5
    for contender in data["contenders"].values():
        assert contender["title"] in out
    assert all(len(token_ids) == 8 for outputs in data["outputs"].values() for token_ids in outputs)


def test_bench_reports_spec_bench_by_task_beside_the_paper(run: Run, tmp_path: Path) -> None:
    questions = tmp_path / "question.jsonl"
    lines = [("writing", "Write about Hawaii."), ("math", "What is 2 + 2?"), ("translation", "Translate: guten Tag"),
             ("rag", "word " * 1500), ("translation", "Translate: bonjour"), ("poems", "not one")]  # fmt: skip
    questions.write_text(
        "\n".join(json.dumps({"question_id": 1, "category": kind, "turns": [text, "x"]}) for kind, text in lines)
    )
    small = ("--per-kind", "2", "-n", "8", "--repeats", "1", "--contenders", "plain,self-draft", "--device", "cpu")
    status, out, err = run("bench", "--spec-bench", str(questions), *small)
    assert status == 0, err
    section = out[out.index("Spec-Bench, ") :]
    rows = {line[:32].strip(): line.split()[-1] for line in section.splitlines() if line.strip()}
    assert rows["multi-turn conversation"] == rows["translation"] == "2/2"
    assert rows["retrieval-augmented generation"] == "1/1"
    assert rows["overall"] == "5/5"
    assert "Vicuna-7B, SpecBound" in section
    assert "2.15x" in section
    assert "lost their beginning: 1" in section
    for arguments, words in (
        (("--kinds", "rag"), "leave --prompts and --kinds out"),
        (("--contenders", "plain"), "leave both among the --contenders"),
    ):
        status, _, err = run("bench", "--spec-bench", str(questions), "--device", "cpu", *arguments)
        assert status == 2
        assert words in err


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder outside the checkout."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_notebooks_are_copied_once_and_kept(run: Run, elsewhere: Path) -> None:
    status, out, _ = run("notebooks", "--copy-only")
    copied = elsewhere / "selfdraft-notebooks"
    assert status == 0
    assert str(copied) in out
    shipped = {path.name for path in (ROOT / "notebooks").iterdir() if not path.name.startswith(".")}
    assert {path.name for path in copied.iterdir()} == shipped
    (copied / FIRST).write_text("mine", encoding="utf-8")
    (copied / "another.ipynb").write_text("mine too", encoding="utf-8")
    _, out, _ = run("notebooks", "--copy-only")
    assert "kept" in out
    assert (copied / FIRST).read_text(encoding="utf-8") == "mine"
    assert (copied / "another.ipynb").read_text(encoding="utf-8") == "mine too"


def test_in_a_checkout_its_own_notebooks_are_opened(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "tests")
    _, out, _ = run("notebooks", "--copy-only")
    assert out == f"notebooks: {ROOT / 'notebooks'}\n"
    assert not (ROOT / "tests" / "selfdraft-notebooks").exists()


def test_notebooks_as_pages_need_neither_python_nor_a_network(run: Run, elsewhere: Path) -> None:
    """Breaks when a page lacks its figures, fetches a script from another host, or gives the solutions away."""
    (elsewhere / "mine").mkdir()
    shutil.copy(ROOT / "notebooks" / "02_how_self_drafting_works.ipynb", elsewhere / "mine")
    status, out, _ = run("notebooks", "--folder", "mine", "--html")
    assert status == 0
    page = elsewhere / "mine" / "02_how_self_drafting_works.html"
    assert f"written: {page.relative_to(elsewhere)}" in out
    content = page.read_text(encoding="utf-8")
    notebook = json.loads((ROOT / "notebooks" / "02_how_self_drafting_works.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    figures = sum("application/vnd.plotly.v1+json" in output.get("data", {}) for output in outputs)
    assert content.count("Plotly.newPlot(") == figures > 0
    assert not re.search(r"""(src|href)=["']https?://[^"']*(\.js|cdn|unpkg)""", content)
    folded = sum(cell["metadata"].get("jupyter", {}).get("source_hidden", False) for cell in notebook["cells"])
    assert content.count("<details><summary>solution</summary>") == folded > 0
    assert "right, in all" not in content
    assert len(list(page.parent.glob("*.html"))) == len(list(page.parent.glob("*.ipynb")))
    page.with_suffix(".ipynb").write_text("no notebook", encoding="utf-8")
    status, _, err = run("notebooks", "--folder", "mine", "--html")
    assert status != 0
    assert "cannot be read as a notebook" in err


@pytest.fixture
def lab(elsewhere: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`selfdraft-viz notebooks` as a process, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--no-browser", f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=secret")
    process = python("-m", "selfdraft_viz", "notebooks", *options, cwd=elsewhere)
    yield process, port
    process.terminate()
    process.communicate(timeout=60)


@pytest.mark.slow
def test_notebooks_opens_jupyterlab_on_the_explorer(lab: tuple[subprocess.Popen[str], int]) -> None:
    process, port = lab
    url = f"http://127.0.0.1:{port}/api/contents/{FIRST}?token=secret&content=0"
    deadline = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                assert json.load(answer)["path"] == FIRST
                break
        except OSError:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.5)
    process.terminate()
    assert process.wait(timeout=60) == 0
    assert process.stderr is not None
    assert f"/lab/tree/{FIRST}" in process.stderr.read()
    with pytest.raises(OSError, match="refused"):  # JupyterLab went with it
        urllib.request.urlopen(url, timeout=10)

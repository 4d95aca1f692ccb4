"""What a newcomer gets: the files that install the project, and the README that tells how."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import torch
import typer
import yaml

import selfdraft_viz as sv
from selfdraft_viz.cli import app

ROOT = Path(__file__).parent.parent
torch.set_num_threads(1)  # two threads that wait for each other on a busy machine take many times as long
README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def files_below(folder: Path) -> set[str]:
    """Relative to `folder`, with what editors and Python leave behind left out."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if not any(part.startswith((".", "__pycache__")) for part in path.parts)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout and unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_conda_installs_what_pip_installs() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    (installed,) = pip["pip"]
    extra = re.fullmatch(r"-e \.\[(\w+)\]", installed)
    assert environment["name"] == PROJECT["name"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    assert extra is not None
    assert extra[1] in PROJECT["optional-dependencies"]


def test_the_wheel_holds_the_package_its_assets_and_the_notebooks(wheel: Path) -> None:
    packed = files_below(wheel / "selfdraft_viz")
    assert packed >= files_below(ROOT / "selfdraft_viz")
    assert {f"notebooks/{name}" for name in files_below(ROOT / "notebooks")} <= packed
    assert "assets/prompts.json" in packed
    assert "assets/tales-14m/model.safetensors" in packed
    distribution = f"selfdraft_viz-{sv.__version__}"
    assert {path.name for path in wheel.iterdir()} == {
        "selfdraft_viz",
        f"{distribution}.dist-info",
        f"{distribution}.data",
    }
    voila = "data/share/jupyter/voila/templates/selfdraft/index.html.j2"
    assert voila in files_below(wheel / f"{distribution}.data")


def test_the_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "selfdraft_viz", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(wheel), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("notebooks", "--copy-only")
    assert files_below(tmp_path / "selfdraft-notebooks") == files_below(ROOT / "notebooks")
    assert run("generate", "Once upon", "-n", "3", "--device", "cpu").startswith("Once upon")


def test_every_library_that_is_imported_is_declared() -> None:
    lines = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["cluster"]]  # the latter for who has a cluster
    declared = {re.split(r"[<>=\[ ]", line)[0].lower().replace("_", "-") for line in lines}
    distributions = packages_distributions()
    undeclared = set()
    for path in (ROOT / "selfdraft_viz").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"selfdraft_viz"}:
                providers = {provider.lower().replace("_", "-") for provider in distributions.get(name, [])}
                if not providers & declared:
                    undeclared.add((path.relative_to(ROOT).as_posix(), name))
    assert undeclared == set()


def test_the_readmes_two_lines_are_those_that_are_checked() -> None:
    taken = re.search(r"mapfile -t lines < <\((grep .* README\.md)\)", CI)
    assert taken is not None
    lines = subprocess.run(
        taken[1], shell=True, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert lines == [
        "pip install . && selfdraft-viz notebooks",
        'pip install -e ".[test]" && pytest --nbval tests notebooks',
    ]
    assert all(f"```sh\n{line}\n```" in README for line in lines)
    for number in (0, 1):
        assert re.search(rf'bash -c "\$\{{lines\[{number}\]\}}"', CI)


def test_the_ci_script_is_sound() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert CI.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in CI
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)
    for check in ("ruff check .", "ruff format --check .", "mypy"):
        assert f"\n{check}\n" in CI
    assert CI.rstrip().endswith('bash -c "${lines[1]}"'), "pytest's closing line is the last one"


def test_the_readmes_first_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (program, *_) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(program, "README.md", "exec"), {})
    assert sv.Trace.load("run.parquet").method == "self-draft"


def test_the_readmes_names_exist() -> None:
    for name in re.findall(r"\bsv\.(\w+)", README):
        assert name in sv.__all__
    for name in re.findall(r"`(\w+Annealing|\w+Temperature)`", README):
        assert name in sv.__all__


def test_the_readmes_commands_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    group = typer.main.get_command(app)
    typed = re.findall(r"^(?:.*`)?selfdraft-viz ([a-z][^`\n#<]*)", README, flags=re.MULTILINE)
    assert len(typed) > 6
    for line in typed:
        name, *arguments = shlex.split(line)
        group.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]


def test_the_readmes_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://arxiv.org/") or (ROOT / target).is_file(), target


FORBIDDEN = {
    "a path of somebody's machine": r"(?<![\w.])/(work|root|home|opt|Users)(?![a-z])/?",
    "a file beside the checkout": r"\.\./shared",
    "a package index": r"--(extra-)?index-url|https?://[\w.-]+/(simple|whl|debian)\b",
}


def test_no_tracked_file_speaks_of_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):  # binary, or being deleted
            continue
        for what, pattern in FORBIDDEN.items():
            found = re.search(pattern, text)
            assert not found, f"{name} names {what}: {text[max(0, found.start() - 40) : found.end() + 40]!r}"

"""The floors of the package: each imports only downwards, and each can stand without what is above it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny

import selfdraft_viz as sv

PACKAGE = Path(sv.__file__).parent
FLOORS = [
    {"events", "settings", "schedules", "policies", "text", "errors", "saved", "glossary", "progress", "openmp"},
    {"layered"},
    {"heads", "translators", "noise"},
    {"decoding"},
    {"trace"},
    {"model"},
    {"lab"},
    {"plots"},
    {"widgets"},
    {"cli"},
]
"""Bottom first. `selfdraft_viz/__init__.py` stands apart: it names things of every floor, and imports them lazily."""
WITHOUT_TORCH = {"events", "schedules", "policies", "settings", "trace", "text", "errors", "saved", "openmp", "plots"}
TORCH = {"torch", "transformers", "safetensors", "tokenizers", "huggingface_hub"}
WITHOUT_WIDGETS = set().union(*FLOORS[:7])
WIDGETS = {"plotly", "ipywidgets", "anywidget", "IPython", "ipykernel", "jupyterlab"}


def floor_of(module: str) -> int:
    """The floor of `selfdraft_viz.<part>...`; what the package itself offers lazily is on the floor that it comes
    from."""
    part = module.split(".")[1]
    return next(index for index, parts in enumerate(FLOORS) if part in parts)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function, as a dotted name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module == "selfdraft_viz":
                yield from (home(alias.name) for alias in node.names)
            else:
                yield node.module


def home(name: str) -> str:
    """The module that `from selfdraft_viz import name` takes something from."""
    if (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir():
        return f"selfdraft_viz.{name}"
    return sv._LAZY.get(name, "selfdraft_viz.errors")  # the rest of what it offers is of the lowest floor


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py" and path.parent != PACKAGE) + [
        path for path in sorted(PACKAGE.glob("*.py")) if path.name not in ("__init__.py", "__main__.py")
    ]


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_module_is_on_a_floor() -> None:
    """Breaks when a module is added that no rule holds for."""
    assert {part_of(path) for path in modules()} == set().union(*FLOORS)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_floor_and_below(path: Path) -> None:
    """Breaks when a lower floor comes to need a higher one, if only inside a function or for a type."""
    floor = floor_of(f"selfdraft_viz.{part_of(path)}")
    for module in imports(path):
        if module.startswith("selfdraft_viz."):
            assert floor_of(module) <= floor, f"{part_of(path)} imports {module}, which is above it"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_no_library_that_its_floor_does_without(path: Path) -> None:
    """Breaks when a trace can no longer be opened without torch, or a bare server needs plotly to decode."""
    libraries = {module.split(".")[0] for module in imports(path)}
    if part_of(path) in WITHOUT_TORCH:
        assert not libraries & TORCH
    if part_of(path) in WITHOUT_WIDGETS:
        assert not libraries & WIDGETS


def test_the_package_itself_imports_only_the_lowest_floor() -> None:
    """Breaks when `import selfdraft_viz` loads torch, or what is above it, at once."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:  # those under `if TYPE_CHECKING` are not among them
        if isinstance(node, ast.ImportFrom) and node.module.startswith("selfdraft_viz"):
            assert floor_of(node.module) == 0
    assert set(sv._LAZY) <= set(sv.__all__)
    assert set(sv.__all__) <= set(dir(sv))
    for name in set(sv.__all__) - {"Explorer"}:
        assert getattr(sv, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = sv.nothing


BLOCK = """
import sys
from importlib.abc import MetaPathFinder

class Block(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked)", name=name)

sys.meta_path.insert(0, Block())
"""


def run_without(blocked: set[str], code: str) -> str:
    """What `code` prints in a Python that has none of the `blocked` packages."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=sorted(blocked)) + code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_bare_server_decodes_trains_and_compares(tmp_path: Path) -> None:
    """Breaks when decoding needs plotly, ipywidgets or a notebook."""
    output = run_without(
        WIDGETS,
        f"""
import pkgutil
from importlib import import_module
import selfdraft_viz as sv
import selfdraft_viz.lab

for module in pkgutil.walk_packages(selfdraft_viz.lab.__path__, "selfdraft_viz.lab."):
    import_module(module.name)
model = sv.load(device="cpu")
comparison = model.compare("Once upon a time", sv.Settings(threshold=0.5), max_new_tokens=12)
assert comparison.equal, str(comparison)
comparison.selfdraft.save({str(tmp_path / "run.parquet")!r})
heads = sv.train_exit_heads(
    model, [list(range(40))] * 4, exit_layers=[2], steps=1, batch_size=1, window=16, progress=False
)
assert heads.exit_layers == (2,)
try:
    sv.Explorer
except ModuleNotFoundError as error:
    print("the explorer says:", error)
""",
    )
    assert "the explorer says: No module named" in output
    assert len(sv.Trace.load(tmp_path / "run.parquet").token_ids) == 12


def test_traces_and_plots_open_without_torch(tmp_path: Path) -> None:
    """Breaks when a recorded run needs the model, or torch, to be looked at."""
    model = tiny.load("llama", [1, 2])
    trace = model.generate([1, 2, 3], sv.Settings(threshold=0.2), max_new_tokens=16, top_tokens=2)
    trace.save(tmp_path / "run.parquet")
    output = run_without(
        TORCH,
        f"""
import json
import pkgutil
from importlib import import_module
import selfdraft_viz as sv
import selfdraft_viz.plots
from selfdraft_viz import events, schedules, settings, text

for module in pkgutil.walk_packages(selfdraft_viz.plots.__path__, "selfdraft_viz.plots."):
    import_module(module.name)
import_module("selfdraft_viz.lab.replay")
trace = sv.Trace.load({str(tmp_path / "run.parquet")!r})
trace.save({str(tmp_path / "again.parquet")!r})
recorder = sv.TraceRecorder()
assert trace.settings == sv.Settings(threshold=0.2)
print(json.dumps(trace.summary()))
try:
    sv.load()
except ModuleNotFoundError as error:
    assert error.name == "torch"
else:
    raise AssertionError("loaded without torch")
""",
    )
    assert output.strip() == json.dumps(trace.summary())
    assert sv.Trace.load(tmp_path / "again.parquet").tokens.equals(trace.tokens)


def test_importing_the_package_loads_neither_torch_nor_plotly() -> None:
    """Breaks when the first line of every notebook becomes slow."""
    loaded = run_without(
        set(),
        "import selfdraft_viz\n"
        "print([name for name in ('torch', 'transformers', 'plotly', 'ipywidgets', 'pandas') if name in sys.modules])",
    )
    assert loaded.strip() == "[]"

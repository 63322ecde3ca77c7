"""The shape of the code: arrows one way, no torch in the value half, no Streamlit outside `ui/`, files of one idea."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vlm_analysis"

# From the bottom up; a module may import from its own rank and below. Whatever is not named here fails the test.
RANKS = tuple(
    frozenset(line.split())
    for line in (
        "errors progress files details",
        "images archives prompt_checks prompt_sources prompts measures wording matching choices model_info token_maps recording "
        "row_store score_store jobs workspace figures report",
        "halves rank masks dialects tables evaluation costs comparison compared card story stored",
        "checkpoint_files memory sources fit layer_config layers processors models inputs streams attention similarity record prune "
        "interrupt decoding latency cost evaluate respond shared_runs sweep reload proof export",
        "pipeline pocket",
        "ui",
    )
)
VALUE_HALF = RANKS[0] | RANKS[1] | RANKS[2]
HEAVY = ("torch", "transformers", "streamlit")


def part_of(name: str) -> str:
    return name.split(".")[1] if name.count(".") else ""


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """Return (imported module, imported at run time) of every import in a file; those under TYPE_CHECKING are not."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [submodule_or_module(node.module, alias.name) for alias in node.names]
        found += [(name, id(node) not in typing_only) for name in names]
    return found


def submodule_or_module(module: str, name: str) -> str:
    """Return what `from module import name` imports: a module of that name where there is one."""
    place = ROOT.joinpath(*module.split("."), name)
    return f"{module}.{name}" if place.with_suffix(".py").exists() or place.is_dir() else module


SOURCES = sorted(PACKAGE.rglob("*.py"))


def module_part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rank_of(part: str) -> int:
    return next(rank for rank, parts in enumerate(RANKS) if part in parts)


def test_every_module_has_a_place_in_the_order():
    parts = {module_part(path) for path in SOURCES} - {"__init__"}
    assert parts == set().union(*RANKS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    if path.parent == PACKAGE and path.name == "__init__.py":
        return
    own = rank_of(module_part(path))
    for name, at_run_time in imports_of(path):
        if name.startswith("vlm_analysis.") and at_run_time:
            assert rank_of(part_of(name)) <= own, f"{path.name} imports {name}, which lies above it"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_streamlit_is_imported_in_ui_only(path):
    if module_part(path) != "ui":
        assert not [name for name, _ in imports_of(path) if name.split(".")[0] == "streamlit"]


def test_no_import_cycle():
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = {
            other for other, at_run_time in imports_of(path) if at_run_time and other.startswith("vlm_analysis.")
        }
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name in done or name not in graph:
            return
        for other in graph[name]:
            visit(other, (*above, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_value_half_opens_where_torch_cannot_be_imported():
    """A subprocess in which torch, transformers and Streamlit cannot be found imports the whole value half."""
    modules = [f"vlm_analysis.{part}" for part in sorted(VALUE_HALF)]
    code = f"""
import sys, importlib
for heavy in {HEAVY!r}:
    sys.modules[heavy] = None
for name in {modules!r}:
    importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_overview_starts_without_torch():
    code = """
import sys
import vlm_analysis.ui.overview, vlm_analysis.ui.shell
loaded = {name for name in ("torch", "transformers") if name in sys.modules}
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_plotly_is_imported_when_a_picture_is_due():
    modules = [f"vlm_analysis.{part}" for part in sorted(VALUE_HALF - {"figures"})]
    code = f"import sys, importlib\nfor name in {modules!r}: importlib.import_module(name)\nassert 'plotly' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_no_file_is_above_400_lines():
    files = [*SOURCES, *ROOT.glob("pages/*.py"), ROOT / "app.py", *ROOT.glob("tests/**/*.py")]
    assert not [f"{path}: {count}" for path in files if (count := len(path.read_text("utf-8").splitlines())) > 400]


def test_pages_hold_no_classes_and_no_loops_over_layers():
    for path in ROOT.glob("pages/*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)], path.name
        assert not [name for name, _ in imports_of(path) if name.split(".")[0] in ("torch", "numpy", "transformers")], (
            path.name
        )


def test_nothing_is_unpickled():
    forbidden = {"pickle", "torch.load", "joblib", "dill"}
    for path in SOURCES:
        text = ast.unparse(ast.parse(path.read_text("utf-8")))
        assert not [name for name, _ in imports_of(path) if name in forbidden], path.name
        assert "torch.load(" not in text, path.name
        assert "allow_pickle=True" not in text, path.name

"""The shape of the code: arrows one way, no torch in the value half, no Streamlit outside `ui/`, files of one idea."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vlm_analysis"

# From the bottom up; a room sees itself, the rooms on the lines below it, and the ground: plain modules beside the rooms.
ORDER = tuple(
    frozenset(line.split())
    for line in (
        "guard",
        "ground",
        "prompts",
        "models",
        "edits",
        "recording evaluation",
        "recovery",
        "selection",
        "figures",
        "export",
        "workbench pocket",
        "ui",
        "command_line",
    )
)
COMMAND_LINE = ("cli", "__main__")
WITH_TORCH = (  # beside these no module of the package imports torch or transformers when it is imported
    "models",
    "edits.apply",
    "edits.narrowing",
    "edits.towers",
    "edits.parts",
    "edits.tokens",
    "edits.view",
    "recording.record",
    "recording.towers",
    "recording.probing",
    "recording.passes",
    "recording.streams",
    "recording.similarity",
    "recording.attention",
    "evaluation.run",
    "recovery.closed_form",
    "recovery.places",
    "recovery.finetune",
    "recovery.learning",
    "recovery.replacing",
    "recovery.standin",
    "selection.width.passes",
    "selection.width.scoring",
    "export.adapter",
    "export.checkpoint",
    "export.proof",
    "export.reload",
    "export.shipped",
    "export.probe.make",
    "pocket",
)
MOST_PLAIN = 9
HEAVY = ("torch", "transformers", "streamlit")


@cache
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


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(name: str) -> str:
    """Return the room of a module: the package that it lies in, or "ground"."""
    first = (*name.split(".")[1:2], "")[0]
    if first in COMMAND_LINE:
        return "command_line"
    return first if (PACKAGE / first / "__init__.py").exists() and first else "ground"


def height(room: str) -> int:
    return next(place for place, rooms in enumerate(ORDER) if room in rooms)


def inner_imports(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, those for types only too."""
    return {name for name, _ in imports_of(path) if name.startswith("vlm_analysis.")}


def needs_torch(name: str) -> bool:
    short = name.removeprefix("vlm_analysis.")
    return any(short == part or short.startswith(f"{part}.") for part in WITH_TORCH)


WITHOUT_TORCH = [name for path in SOURCES if not needs_torch(name := module_name(path)) and room_of(name) != "ui"]


def test_every_room_has_a_place_in_the_order_and_few_modules_lie_beside_them():
    assert {room_of(module_name(path)) for path in SOURCES} <= set().union(*ORDER)
    assert len([path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]) <= MOST_PLAIN


def test_imports_point_one_way() -> None:
    wrong = []
    for path in SOURCES[1:]:  # not the face, which names every room
        own = room_of(module_name(path))
        for name in inner_imports(path):
            other = room_of(name)
            if other not in (own, "ground") and not height(other) < height(own):
                wrong.append(f"{module_name(path)} imports {name}, which lies above it")
    assert wrong == []


def test_the_folder_of_a_page_sees_itself_and_what_all_pages_share() -> None:
    assert [
        f"{module_name(path)} imports {name}, which is another page's"
        for path in SOURCES
        if room_of(module_name(path)) == "ui"
        for name in inner_imports(path)
        if name.startswith("vlm_analysis.ui.")
        if name.split(".")[2] not in ("common", *module_name(path).split(".")[2:3])
    ] == []


def test_streamlit_is_imported_in_ui_only() -> None:
    assert [
        module_name(path)
        for path in SOURCES
        if room_of(module_name(path)) != "ui"
        if any(name.split(".")[0] == "streamlit" for name, _ in imports_of(path))
    ] == []


def test_no_import_cycle():
    graph = {module_name(path): inner_imports(path) for path in SOURCES}
    del graph["vlm_analysis"]  # the face names every room
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


def test_value_half_opens_without_torch_and_overview_too_and_plotly_is_imported_when_a_picture_is_due() -> None:
    """A process in which torch, transformers and Streamlit cannot be found imports the value half, then the Overview with Streamlit."""
    code = f"""
import sys, importlib
for heavy in {HEAVY!r}:
    sys.modules[heavy] = None
for name in {[name for name in WITHOUT_TORCH if room_of(name) != "figures"]!r}:
    importlib.import_module(name)
assert 'plotly' not in sys.modules
for name in {[name for name in WITHOUT_TORCH if room_of(name) == "figures"]!r}:
    importlib.import_module(name)
del sys.modules["streamlit"]
import vlm_analysis.ui.overview.overview, vlm_analysis.ui.common.shell
"""
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
        text = path.read_text("utf-8")
        assert not [name for name, _ in imports_of(path) if name in forbidden], path.name
        assert "torch.load(" not in text, path.name
        assert "allow_pickle=True" not in text, path.name


def test_no_two_test_files_share_a_name() -> None:
    """Outside packages pytest imports them by their names alone, and refuses the second one."""
    tests = Path(__file__).parent
    names = Counter(path.name for path in tests.rglob("test_*.py") if not (path.parent / "__init__.py").exists())
    assert [name for name, count in names.items() if count > 1] == []

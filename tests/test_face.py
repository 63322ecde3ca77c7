"""The public face: every name is there, nothing heavy comes with the package, and old paths say what to write."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import vlm_analysis
from vlm_analysis import gone

FACE = Path(vlm_analysis.__file__)
HEAVY = ("torch", "transformers", "pandas", "streamlit", "numpy", "pyarrow", "PIL")


def in_fresh_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=FACE.parents[1], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_brings_in_nothing_heavy():
    assert (
        in_fresh_python(f"import sys, vlm_analysis\nprint([m for m in {HEAVY!r} if m in sys.modules])").strip() == "[]"
    )


@pytest.mark.parametrize("name", vlm_analysis.__all__)
def test_every_public_name_is_what_its_module_defines(name):
    value = getattr(vlm_analysis, name)
    home = importlib.import_module(f"vlm_analysis.{vlm_analysis._HOME_OF[name]}")
    assert value is vars(home)[name]
    assert getattr(value, "__module__", home.__name__).startswith(("vlm_analysis", "collections"))


def test_a_public_name_is_no_submodule():
    """`from vlm_analysis import record` would give the module as soon as somebody had imported it."""
    modules = {path.stem for path in FACE.parent.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not modules & set(vlm_analysis.__all__)


def test_type_checkers_see_the_names_that_there_are():
    tree = ast.parse(FACE.read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        (node.module.removeprefix("vlm_analysis."), alias.asname)
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    assert seen == {(module, name) for name, module in vlm_analysis._HOME_OF.items()}
    assert (FACE.parent / "py.typed").exists()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no public name 'prune_everything'"):
        _ = vlm_analysis.prune_everything  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", sorted(gone.OLD))
def test_a_path_of_version_0_1_names_the_line_to_write(module):
    names = gone.OLD[module]
    if (FACE.parent / module).is_dir():
        assert names, "a package that carries an old name tells something"
        with pytest.raises(ImportError, match=f"Write: from vlm_analysis import {names[0]}$"):
            exec(f"from vlm_analysis.{module} import {names[0]}")
        return
    with pytest.raises(ImportError) as caught:
        importlib.import_module(f"vlm_analysis.{module}")
    assert caught.value.msg == gone.message(module)
    for name in names:
        assert gone.NEW_NAMES.get(name, name) in vlm_analysis.__all__


def test_submodules_of_packages_with_old_names_are_found():
    assert (
        in_fresh_python("from vlm_analysis.models import config; print(config.__name__)").strip()
        == "vlm_analysis.models.config"
    )

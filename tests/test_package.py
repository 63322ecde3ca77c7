"""The package as it is installed: what it needs, what its wheel brings, and that its command is there."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import EntryPoint, packages_distributions
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import vlm_analysis
from vlm_analysis import cli

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
NEEDED = {canonicalize_name(one.name): one for one in map(Requirement, PROJECT["dependencies"])}
EXTRAS = {
    canonicalize_name(one.name): one
    for extra in PROJECT["optional-dependencies"].values()
    for one in map(Requirement, extra)
}
NOT_IMPORTED = {"accelerate"}  # transformers wants it for models that are spread over devices
MOST_MB = 15


def pins(name: str) -> dict[str, str]:
    """Return the exact versions of a requirements file by package."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text("utf-8").splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith("-")]
    assert all(str(one.specifier).startswith("==") for one in found)
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in found}


PINS = pins("requirements.txt")


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_every_range_holds_the_version_that_is_tested(name: str) -> None:
    assert NEEDED[name].specifier.contains(PINS[name])
    assert "==" not in str(NEEDED[name].specifier)


def test_what_is_pinned_is_needed_and_extras_hold_what_the_tests_install() -> None:
    assert set(PINS) == set(NEEDED)
    tested = pins("requirements-dev.txt") | pins("requirements-slow.txt")
    for name, one in EXTRAS.items():
        assert one.specifier.contains(tested[name])


def imported() -> set[str]:
    """Return the top names of what the package and its pages import."""
    names: set[str] = set()
    for path in (*(ROOT / "vlm_analysis").rglob("*.py"), *(ROOT / "pages").glob("*.py"), ROOT / "app.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names


def test_every_import_is_a_declared_dependency_and_none_is_declared_for_nothing() -> None:
    outside = imported() - sys.stdlib_module_names - {"vlm_analysis", *EXTRAS}
    makers = packages_distributions()
    assert {canonicalize_name(makers[name][0]) for name in outside} | NOT_IMPORTED == set(NEEDED)


def test_the_command_is_the_one_that_the_package_runs() -> None:
    (script,) = PROJECT["scripts"].items()
    assert EntryPoint(*script, "console_scripts").load() is cli.main
    assert script[0] == "strata"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from this checkout, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "-w", str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return made


class TestWheel:
    def test_it_brings_the_dashboard_and_the_bundled_model_and_no_more(self, wheel: Path) -> None:
        info = f"vlm_analysis-{vlm_analysis.__version__}.dist-info"
        assert wheel.name == f"vlm_analysis-{vlm_analysis.__version__}-py3-none-any.whl"
        with zipfile.ZipFile(wheel) as archive:
            names = {name for name in archive.namelist() if not name.startswith(info)}
            told = archive.read(f"{info}/METADATA").decode()
            assert "strata = vlm_analysis.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
        package = (path for path in (ROOT / "vlm_analysis").rglob("*") if path.is_file())
        expected = {
            str(path.relative_to(ROOT)) for path in package if path.suffix in (".py", ".typed", ".js", ".css", ".html")
        }
        for source in ("app.py", ".streamlit/config.toml", *(f"pages/{p.name}" for p in ROOT.glob("pages/*.py"))):
            expected.add(f"vlm_analysis/dashboard/{source}")
        assets = (path.relative_to(ROOT / "assets") for path in (ROOT / "assets").rglob("*") if path.is_file())
        expected |= {f"vlm_analysis/_assets/{path}" for path in assets if path.parts[0] != "screenshots"}
        assert names == {str(PurePosixPath(name)) for name in expected}
        assert "License-Expression: Apache-2.0" in told
        assert wheel.stat().st_size < MOST_MB * 2**20

    def test_unpacked_it_finds_what_it_brings(self, wheel: Path, tmp_path: Path) -> None:
        zipfile.ZipFile(wheel).extractall(tmp_path)
        code = (
            "import vlm_analysis, vlm_analysis.assets as a\nfrom vlm_analysis import open_prompts\n"
            "print(vlm_analysis.__file__, len(open_prompts('math')), a.asset('pocket-vl', 'config.json').exists(), a.dashboard())"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        package = tmp_path / "vlm_analysis"
        assert done.stdout.split() == [f"{package / '__init__.py'}", "45", "True", f"{package / 'dashboard'}"]

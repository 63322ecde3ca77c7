"""The command `strata`: quick help, exit codes, the demo's findings and the dashboard's settings."""

from __future__ import annotations

import copy
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import streamlit as st
import typer
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

import vlm_analysis
from vlm_analysis import LoadedModel, StrataError, cli, headline
from vlm_analysis.cli import base, dashboard
from vlm_analysis.export.document.page import document_html
from vlm_analysis.models import load
from vlm_analysis.progress import Cancelled, Progress
from vlm_analysis.ui.common import ahead
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.workbench.documents import document_for
from vlm_analysis.workbench.stories import open_saved_story, stories
from vlm_analysis.workbench.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "pandas", "streamlit", "numpy", "plotly", "PIL")
START_S = 60


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def strata(*arguments: str):
    return CliRunner().invoke(cli.strata, arguments)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["demo", "--help"], ["app", "--help"]])
def test_help_and_version_answer_without_anything_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
for heavy in {HEAVY!r}:
    sys.modules[heavy] = None
sys.argv = ["strata", *{arguments!r}]
from vlm_analysis.cli import main
main()
"""
    done = python("-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("strata " + vlm_analysis.__version__ if arguments == ["--version"] else "Usage: strata") in done.stdout


def test_the_package_run_as_a_module_is_the_command() -> None:
    done = python("-m", "vlm_analysis", "--help")
    assert done.stdout == strata("--help").stdout.replace("Usage: root", "Usage: strata")
    assert "demo" in done.stdout


class TestEndings:
    @pytest.mark.parametrize(
        ("raised", "code", "said"),
        [
            (StrataError("it failed: expected a, got b. Do c."), 2, "it failed: expected a, got b. Do c.\n"),
            (StrataError("a \x1b[2J name"), 2, "a  [2J name\n"),
            (Cancelled(), 130, f"{base.STOPPED}\n"),
            (KeyboardInterrupt(), 130, f"{base.STOPPED}\n"),
        ],
    )
    def test_what_is_no_bug_ends_with_one_message(self, raised: BaseException, code: int, said: str) -> None:
        done = CliRunner().invoke(self.command(raised), [])
        assert (done.exit_code, done.stdout, done.stderr) == (code, "", said)

    def test_a_bug_keeps_its_traceback(self) -> None:
        bug = ZeroDivisionError("a bug")
        assert CliRunner().invoke(self.command(bug), []).exception is bug
        code = "from vlm_analysis.cli import base, main\n@base.command('Look')\ndef broken(): 1 / 0\nmain()"
        done = python("-c", f"import sys; sys.argv = ['strata', 'broken']\n{code}")
        assert done.returncode == 1
        assert done.stderr.startswith("Traceback (most recent call last)")
        assert "in broken" in done.stderr

    def test_a_wrong_option_is_named(self) -> None:
        done = strata("demo", "--nonsense")
        assert done.exit_code == 2
        assert "--nonsense" in done.stderr

    @staticmethod
    def command(raised: BaseException) -> typer.Typer:
        one = typer.Typer(pretty_exceptions_enable=False)

        def fails() -> None:
            raise raised

        one.command()(base.ending(fails))
        return one


@pytest.mark.usefixtures("_loaded_once", "_no_bars")
class TestDemo:
    def test_it_prints_the_findings_writes_the_report_and_keeps_what_the_dashboard_shows(
        self, small: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bundled = LoadedModel(small.model, small.processor, "pocket-vl", small.source, small.max_vision_tokens)
        monkeypatch.setattr(load, "load_model", lambda *_, **__: copy.copy(bundled))
        done = strata("demo", "--first", "1", "--quiet", "--out", str(tmp_path / "new" / "x.html"))
        assert (done.exit_code, done.stderr) == (0, "")
        shelf = Workspace()
        (item,) = stories(shelf)
        story = open_saved_story(shelf, item)
        assert (tmp_path / "new" / "x.html").read_text("utf-8") == document_html(document_for(shelf, item))
        lines = done.stdout.splitlines()
        for domain, row in story.dense.by_domain.iterrows():
            (line,) = [line.split() for line in lines if line.startswith(f"{domain} ") and "exact_match" in line]
            assert float(line[2]) == pytest.approx(row["exact_match"], abs=5e-4)
            assert float(line[3]) == pytest.approx(story.pruned.by_domain.loc[domain, "exact_match"], abs=5e-4)
        said = " ".join(done.stdout.split())
        method, mask = story.shown
        assert " ".join(headline(story.answer).split()) in said
        assert f"Without {mask.budget} of 8 layers, chosen by “{method}”, the model keeps" in said
        assert "say nothing about large models" in said
        assert f"{tmp_path / 'new' / 'x.html'}" in done.stdout.replace("\n", "")
        assert max(map(len, lines[:-1])) <= 100

        st.cache_resource.clear()
        page = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
        assert not page.exception
        assert escaped(headline(story.answer)) in [heading.value for heading in page.subheader]
        st.cache_resource.clear()

    def test_a_folder_in_the_reports_place_is_refused_before_anything_is_measured(self, tmp_path: Path) -> None:
        done = strata("demo", "--out", str(tmp_path))
        assert (done.exit_code, done.stdout) == (2, "")
        assert "expected a file name, got the folder" in done.stderr
        assert not Workspace().items("prompts")

    def test_stopped_in_the_middle_it_goes_on_from_there(
        self, small: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(load, "load_model", lambda *_, **__: copy.copy(small))
        arguments = ("demo", "--first", "1", "--out", str(tmp_path / "x.html"))
        with monkeypatch.context() as patch:
            patch.setattr(base, "shown", self.interrupted)
            done = strata(*arguments)
        assert (done.exit_code, done.stdout, done.stderr) == (130, "", f"{base.STOPPED}\n")
        assert not (tmp_path / "x.html").exists()
        (rows,) = (Workspace().root / "unfinished").glob("*")
        before = {path.name for path in rows.iterdir()}
        assert before
        assert strata(*arguments).exit_code == 0
        assert not rows.exists()
        assert len(Workspace().items("prompts")) == 2  # chosen on one, reported on the other

    @staticmethod
    @contextmanager
    def interrupted(*_: object, **__: object) -> Iterator[Progress]:
        """A progress during which somebody presses Ctrl-C while masks are evaluated."""

        def report(done: int, total: int, message: str) -> None:
            if "pruned model" in message:
                signal.raise_signal(signal.SIGINT)

        yield report


class TestApp:
    def test_it_listens_on_this_machine_only_whatever_folder_and_environment_say(self, served: str) -> None:
        with urllib.request.urlopen(f"{served}/_stcore/health", timeout=5) as answer:
            assert answer.read() == b"ok"
        port = int(served.rpartition(":")[2])
        with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
            probe.connect(("127.0.0.2", port))  # answers where the server listens on every address

    def test_a_taken_port_is_named_with_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            done = strata("app", "--port", str(port))
        assert done.exit_code == 2
        assert f"127.0.0.1:{port}: expected a free port" in done.stderr
        assert "--port" in done.stderr

    def test_a_browser_is_opened_unless_told_otherwise(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[list[str]] = []
        monkeypatch.setattr(dashboard.runpy, "run_module", lambda *_, **__: asked.append(sys.argv))
        monkeypatch.setattr(ahead, "import_ahead", lambda: None)
        monkeypatch.setattr(sys, "argv", [])
        assert strata("app", "--port", str(free_port())).exit_code == 0
        assert strata("app", "--port", str(free_port()), "--no-browser").exit_code == 0
        assert ["--server.headless=true" in arguments for arguments in asked] == [False, True]
        assert all(arguments[:2] == ["streamlit", "run"] for arguments in asked)

    @pytest.fixture
    def served(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        """The address of `strata app`, run from a folder and an environment that ask for every interface."""
        (tmp_path / ".streamlit").mkdir()
        (tmp_path / ".streamlit" / "config.toml").write_text('[server]\naddress = "0.0.0.0"\nport = 1\n')
        monkeypatch.setenv("STREAMLIT_SERVER_ADDRESS", "0.0.0.0")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        port = free_port()
        command = [sys.executable, "-m", "vlm_analysis", "app", "--no-browser", "--port", str(port)]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            answers(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).close())
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=START_S)
        assert process.returncode == 0, said
        assert "Traceback" not in said


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(ask: Callable[[], None]) -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            return ask()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)

"""The command `strata`: a subcommand gathers what it is asked, makes one call of the library, and says what came back.

Findings go to stdout, progress and errors to stderr. What a user can mend ends with 2 and one message, a stop with 130; anything else is a
bug and keeps its traceback. Nothing heavy is imported before a subcommand runs, so that `--help` answers at once.

A new subcommand is a function under `@command`: its signature is what it takes, its docstring what `--help` says.
"""

from __future__ import annotations

import os
import runpy
import shutil
import socket
import sys
import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from vlm_analysis import __version__
from vlm_analysis.assets import dashboard
from vlm_analysis.errors import ExportError, StrataError
from vlm_analysis.progress import Cancelled, Progress
from vlm_analysis.workbench.terminal import printable, shown

STOPPED = "Stopped. What was done is kept; the same command goes on from there."
MENDABLE, INTERRUPTED = 2, 130

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]

strata = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without × gets "?"
    strata(prog_name="strata")


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function the subcommand of its name; the function itself comes back."""
    strata.command()(ending(function))
    return function


def ending(function: Callable[..., None]) -> Callable[..., None]:
    """Return the function with the exit codes that all subcommands share."""

    @wraps(function)
    def guarded(*given: Any, **named: Any) -> None:
        try:
            function(*given, **named)
        except StrataError as error:
            _end(str(error), MENDABLE)
        except (Cancelled, KeyboardInterrupt):
            _end(STOPPED, INTERRUPTED)

    return guarded


def _end(message: str, code: int) -> None:
    typer.echo(printable(message), err=True)
    raise typer.Exit(code) from None


def progress(quiet: bool) -> AbstractContextManager[Progress]:
    """Give a progress that is seen on stderr, in place of the bars that transformers draws."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return shown(sys.stderr, quiet=quiet)


def say(text: str) -> None:
    """Print a finding."""
    typer.echo(printable(text))


def _version(asked: bool) -> None:
    if asked:
        say(f"strata {__version__}")
        raise typer.Exit


@strata.callback()
def _strata(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and end.")
    ] = False,
) -> None:
    """Which decoder layers of a vision-language model can you do without?"""


@command
def app(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of 127.0.0.1 to listen on.")] = 8501,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in a browser.")] = True,
) -> None:
    """Open the dashboard; Ctrl-C ends it."""
    folder = dashboard()
    # Streamlit reads the settings beside the script after those of the current folder; flags go before the environment too.
    settings = tomllib.loads((folder / ".streamlit" / "config.toml").read_text("utf-8"))
    address = settings["server"]["address"]
    _check_free(address, port)
    flags = [f"--server.address={address}", f"--server.port={port}", "--server.showEmailPrompt=false"]
    sys.argv = ["streamlit", "run", str(folder / "app.py"), *flags, *([] if browser else ["--server.headless=true"])]
    runpy.run_module("streamlit", run_name="__main__", alter_sys=True)


def _check_free(address: str, port: int) -> None:
    """Refuse a port that cannot be opened.

    Raises:
        StrataError: another program has it, or it may not be opened.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise StrataError(
                f"The dashboard cannot listen on {address}:{port}: expected a free port, got: {error.strerror}. "
                "Choose another by --port, or end what runs there."
            ) from error


@command
def demo(
    out: Annotated[Path, typer.Option(help="The report, one HTML file that opens offline.")] = Path("strata-demo.html"),
    quiet: Quiet = False,
    first: Annotated[int | None, typer.Option(hidden=True, min=1, help="Prompts of each pack.")] = None,
) -> None:
    """Prune the bundled model and see what breaks.

    Several rankings drop layers of Pocket-VL, which comes with Strata; nothing is downloaded. The findings are printed, the pictures are in
    the report, and the dashboard shows both.
    """
    if out.is_dir():
        raise ExportError(f"report not written: expected a file name, got the folder '{out}'. Name a file in it.")
    with progress(quiet) as on_progress:
        from vlm_analysis.export.story_forms import story_text, write_story
        from vlm_analysis.workbench.slot import ModelSlot
        from vlm_analysis.workbench.stories import demo as run_demo, open_saved_story
        from vlm_analysis.workbench.workspace import Workspace

        shelf = Workspace()
        story = open_saved_story(shelf, run_demo(ModelSlot(), shelf, on_progress, first=first))
        report = write_story(story, out)
    say(story_text(story, width=min(100, shutil.get_terminal_size().columns)))
    say(f"\nThe pictures are in {report.absolute()}. Everything is kept in {shelf.root}; `strata app` shows it.")

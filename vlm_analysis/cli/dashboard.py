"""The dashboard and the demo."""

from __future__ import annotations

import os
import runpy
import shutil
import socket
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_analysis.assets import dashboard
from vlm_analysis.cli.base import command, say
from vlm_analysis.cli.output import check_out
from vlm_analysis.errors import StrataError
from vlm_analysis.guard.shared import VARIABLE
from vlm_analysis.progress import Progress

if TYPE_CHECKING:
    from vlm_analysis.workbench.workspace import Workspace


@command("Dashboard")
def app(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of 127.0.0.1 to listen on.")] = 8501,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in a browser.")] = True,
    shared: Annotated[
        bool, typer.Option("--shared", help="For others too: no code of checkpoints, hub ids or paths of this machine.")
    ] = False,
) -> None:
    """Open the dashboard; Ctrl-C ends it."""
    if shared:
        os.environ[VARIABLE] = "1"
    folder = dashboard()
    # Streamlit reads the settings beside the script after those of the current folder; flags go before the environment too.
    settings = tomllib.loads((folder / ".streamlit" / "config.toml").read_text("utf-8"))
    address = settings["server"]["address"]
    _check_free(address, port)
    flags = [f"--server.address={address}", f"--server.port={port}", "--server.showEmailPrompt=false"]
    sys.argv = ["streamlit", "run", str(folder / "app.py"), *flags, *([] if browser else ["--server.headless=true"])]
    from vlm_analysis.ui.common.ahead import import_ahead

    import_ahead()
    runpy.run_module("streamlit", run_name="__main__", alter_sys=True)


def _check_free(address: str, port: int) -> None:
    """Refuse a port that cannot be opened.

    Raises:
        StrataError: another program uses it, or opening it is not allowed.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise StrataError(
                f"The dashboard cannot listen on {address}:{port}: expected a free port, got: {error.strerror}. "
                "Choose another by --port, or stop the program that listens there."
            ) from error


@command("Dashboard")
def demo(
    shelf: Workspace,
    on_progress: Progress,
    report: Annotated[Path, typer.Option("--out", help="The report, one HTML file that opens offline.")] = Path(
        "strata-demo.html"
    ),
    first: Annotated[
        int | None,
        typer.Option(min=1, help="Take only so many prompts of each pack: faster, and too few to tell much."),
    ] = None,
) -> None:
    """Prune the bundled model and see what breaks.

    Several criteria choose layers of Pocket-VL to drop; the model comes with Strata, nothing is downloaded. The results are printed, the
    figures are in the report, and the dashboard shows both.
    """
    check_out(report, (), tables=(".html",))
    from vlm_analysis.export.document.page import write_document
    from vlm_analysis.export.story_forms import story_text
    from vlm_analysis.workbench.bench import Bench
    from vlm_analysis.workbench.documents import document_for

    bench = Bench("pocket-vl", shelf)
    item = bench.demo(first=first, on_progress=on_progress)
    write_document(document_for(shelf, item), report)
    story = bench.story(item)
    say(story_text(story, width=min(100, shutil.get_terminal_size().columns)))
    say(f"\nThe pictures are in {report.absolute()}. Everything is kept in {shelf.root}; `strata app` shows it.")

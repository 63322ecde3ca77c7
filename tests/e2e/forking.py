"""A script that imports what a dashboard takes seconds to import, and forks dashboards of it: `dashboards.py` asks it, a line a question.

`{"start": home, "arguments": [...]}` answers the number of the new process, `{"stop": number}` ends one. All end with the input.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

IMPORTED = (
    "plotly.graph_objects",
    "streamlit.web.bootstrap",
    "streamlit.web.cli",
    "vlm_analysis.evaluation.run.evaluate",
    "vlm_analysis.models.load",
    "vlm_analysis.recording.record",
    "vlm_analysis.ui.masks.masktable",
    "vlm_analysis.ui.overview.overview",
    "vlm_analysis.workbench.pipeline",
    "transformers.models.qwen3_vl.modeling_qwen3_vl",
)
END_S = 20


def serve(home: str, arguments: list[str]) -> None:
    """Be what `streamlit` with these arguments is, with this home; does not return."""
    os.setsid()
    log = os.open(Path(home) / "server.log", os.O_WRONLY | os.O_CREAT)
    for number, stream in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
        os.dup2(stream, number)
    os.environ["HOME"] = home
    from streamlit.web.cli import main as streamlit

    try:
        streamlit(arguments)
    finally:
        os._exit(0)


def end(number: int) -> None:
    """End a dashboard as the command `kill` does, and by force where it takes too long."""
    signal.signal(signal.SIGALRM, lambda *_: os.kill(number, signal.SIGKILL))
    signal.alarm(END_S)
    with suppress(ProcessLookupError):
        os.kill(number, signal.SIGTERM)
    os.waitpid(number, 0)
    signal.alarm(0)


def main() -> None:
    """Import, then answer until the input ends."""
    sys.path[0] = os.getcwd()
    gc.disable()
    for name in IMPORTED:
        import_module(name)
    gc.freeze()  # what is imported lives to the end
    gc.enable()
    alive: set[int] = set()
    for line in sys.stdin:
        question = json.loads(line)
        number = question.get("stop") or os.fork()
        if not number:
            serve(question["start"], question["arguments"])
        if "stop" in question:
            end(number)
        alive ^= {number}
        print(number, flush=True)
    for number in alive:
        end(number)


if __name__ == "__main__":
    main()

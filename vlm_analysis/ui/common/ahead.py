"""What the first page needs, imported while the browser loads Streamlit's own scripts: the server has nothing else to do then."""

from __future__ import annotations

import inspect
import sys
import time
from importlib import import_module
from threading import Thread

FIRST_PAGE = ("vlm_analysis.ui.common.shell", "vlm_analysis.ui.overview.overview", "vlm_analysis.ui.overview.owndata")
_LOOK_S, _GIVE_UP_S = 0.01, 60.0


def import_ahead() -> Thread:
    """Return a started thread that imports the modules of the first page as soon as Streamlit serves; the page imports what is missing."""
    thread = Thread(target=_import, name="import ahead", daemon=True)
    thread.start()
    return thread


def _import() -> None:
    end = time.monotonic() + _GIVE_UP_S
    while not _serves():  # before that, Streamlit would take the decorated functions for those of a plain script
        if time.monotonic() > end:
            return
        time.sleep(_LOOK_S)
    for name in FIRST_PAGE:
        import_module(name)
    inspect.stack()  # Streamlit asks for it at its first element; it looks up the files of all modules, once


def _serves() -> bool:
    runtime = sys.modules.get("streamlit.runtime")
    if runtime is None or not hasattr(runtime, "get_instance") or not runtime.exists():
        return False
    state = getattr(runtime.get_instance(), "state", None)  # none while it is being made
    return state is not None and state.name != "INITIAL"

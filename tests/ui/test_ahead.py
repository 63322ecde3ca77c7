"""What the first page needs is imported once Streamlit serves, not before, and without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from vlm_analysis.ui.common.ahead import FIRST_PAGE

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import asyncio, sys
from vlm_analysis.ui.common.ahead import FIRST_PAGE, import_ahead

thread = import_ahead()
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.runtime import Runtime, RuntimeConfig

runtime = Runtime(RuntimeConfig("app.py", MemoryMediaFileStorage("/media"), MemoryUploadedFileManager("/upload")))
thread.join(0.2)
assert thread.is_alive()
assert not set(FIRST_PAGE) & set(sys.modules)


async def serve():
    await runtime.start()
    while thread.is_alive():
        await asyncio.sleep(0.05)
    runtime.stop()


asyncio.run(serve())
assert set(FIRST_PAGE) <= set(sys.modules)
assert "torch" not in sys.modules
print("imported")
"""


def test_the_first_page_is_imported_once_streamlit_serves() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("imported\n", 0), done.stderr


def test_all_that_the_script_of_the_first_page_imports_is_named() -> None:
    tree = ast.parse((ROOT / "app.py").read_text("utf-8"))
    imported = {
        node.module for node in tree.body if isinstance(node, ast.ImportFrom) and "address" not in str(node.module)
    }
    assert imported == set(FIRST_PAGE)

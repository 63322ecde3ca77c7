"""A real server: `transformers serve` loads an exported folder, and the probe tells a right folder from a broken one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai_server import wrongly_numbered
from outside import outside_prompts, save_outside_model

from vlm_analysis import PruneMask, export_checkpoint, load_model, probe_server

pytestmark = [
    pytest.mark.slow,  # two servers, each of which imports torch; tests/export/test_probe.py asks small ones
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
WAIT_S = 180
SERVE = "from transformers.cli.transformers import app; app()"


@contextmanager
def served(folder: Path, home: Path) -> Iterator[str]:
    """Run `transformers serve` on a folder, offline, and yield its address once it answers."""
    (home / "hub").mkdir(parents=True, exist_ok=True)  # without it its list of models fails
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-c",
        SERVE,
        "serve",
        str(folder),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        ends = time.monotonic() + WAIT_S
        while not answers(f"{url}/health"):
            assert process.poll() is None, (home / "log").read_text("utf-8", "replace")[-2000:]
            assert time.monotonic() < ends, "transformers serve did not come up"
            time.sleep(0.2)
        yield url
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def test_transformers_serves_an_export_equal_and_a_broken_folder_is_told(tmp_path: Path) -> None:
    loaded = load_model(save_outside_model("llava", tmp_path / "llava"))
    folder = tmp_path / "pruned"
    mask = PruneMask(loaded.n_layers, [2, 3])
    export_checkpoint(loaded, mask, folder, verify=False, probe=list(outside_prompts()))
    with served(folder, tmp_path / "home") as url:
        found = probe_server(url, folder)
    assert (found.verdict, found.reasons) == ("equal", ("4 of 4 answers are equal.",))
    wrongly_numbered(folder, tmp_path / "shifted")
    with served(tmp_path / "shifted", tmp_path / "home") as url:
        broken = probe_server(url, folder)
    assert broken.verdict == "broken"
    assert (
        "4 of the 4 answers that tell it are those of the model when its layers are numbered wrongly." in broken.reasons
    )

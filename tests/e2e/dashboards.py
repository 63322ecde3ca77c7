"""Dashboards with homes of their own, each forked in no time from a process that has imported what a dashboard imports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools import serving


class Dashboards:
    """Starts dashboards that share nothing but what was imported; `home` is the home while that is: an empty folder."""

    def __init__(self, home: Path) -> None:
        env = {**os.environ, "HOME": str(home), "HF_HUB_OFFLINE": "1"}
        env.pop("STRATA_HOME", None)
        self._ports = [serving.free_port()]  # the same for one after the other: the browser knows its scripts
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forking.py"))],
            cwd=serving.ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def close(self) -> None:
        """End them all."""
        self._process.communicate()

    @contextmanager
    def running(self, home: Path) -> Iterator[str]:
        """Run a dashboard with `home` as the user's home; yields its address. Its log, `home/server.log`, must hold no traceback."""
        port, log = self._ports.pop() if self._ports else serving.free_port(), home / "server.log"
        number = self._ask({"start": str(home), "arguments": serving.arguments(port)})
        try:
            url = f"http://127.0.0.1:{port}"
            serving.wait_until_healthy(url, log)
            yield url
        finally:
            self._ask({"stop": number})
            self._ports.append(port)
        text = log.read_text()
        assert not re.search(r"Traceback|Uncaught app execution", text), text[-4000:]

    def _ask(self, question: dict[str, Any]) -> int:
        questions, answers = self._process.stdin, self._process.stdout
        assert questions is not None
        assert answers is not None
        questions.write(json.dumps(question).encode() + b"\n")
        questions.flush()
        return int(answers.readline())

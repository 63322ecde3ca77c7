"""The dashboard as a user starts it, and a real Chromium: for browser tests, screenshots and benchmarks."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
START_S = 300  # on a busy machine; one that ended is told at once


@contextmanager
def running_server(home: Path) -> Iterator[str]:
    """Run the dashboard with `home` as the user's home and no network; yields its address, the log is `home/server.log`.

    Raises:
        RuntimeError: the server ended or did not answer in time; the log is in the message.
    """
    process, url = started_server(home)
    try:
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def started_server(home: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start the dashboard as `running_server` does; returns its process, which the caller must end, and its address."""
    port, log = free_port(), home / "server.log"
    env = {**os.environ, "HOME": str(home), "HF_HUB_OFFLINE": "1"}
    env.pop("STRATA_HOME", None)
    command = [sys.executable, "-m", "vlm_analysis", "app", "--no-browser", "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(url, log, lambda: process.poll() is not None)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process, url


def arguments(port: int) -> list[str]:
    """Return the arguments of the command `streamlit` that runs the dashboard at this port of this machine, without opening a browser."""
    return ["run", "app.py", "--server.port", str(port), "--server.headless", "true"]


def free_port() -> int:
    """Return a port at which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_healthy(url: str, log: Path, has_ended: Callable[[], bool] = lambda: False) -> None:
    """Wait until the dashboard answers; raises RuntimeError with its log where it ended, or does not in time."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and not has_ended():
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("The server did not start:\n" + log.read_text())


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium: the one that `CHROMIUM` names, else the one on the path.

    Raises:
        RuntimeError: no browser is found.
    """
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        raise RuntimeError("No browser found: install Chromium, or point CHROMIUM at one.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def idle(page: Page) -> None:
    """Wait until the page's script has finished."""
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=120_000)


def compare_masks(page: Page, timeout_ms: float = 600_000) -> None:
    """Press "Compare masks" and wait until the page shows the new comparison, not one that was there before, as the demo's."""
    page.get_by_role("button", name="Compare masks").click()
    shown = page.get_by_role("combobox", name="Comparison")
    expect(shown).to_have_value(re.compile(r"^\d+ masks on "), timeout=timeout_ms)
    page.get_by_text("Where the ranking matters").wait_for()

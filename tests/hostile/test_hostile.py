"""Whatever lies in a file: it opens and can be used, or it is refused in words, in bounded time and memory."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from .cases import Case, outcome
from .corpus import corpus, sample

ROOT = Path(__file__).parents[2]


@pytest.mark.filterwarnings("ignore")  # of libraries, about what lies in the files
def test_a_hostile_file_is_opened_whole_or_refused_in_words(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for number, case in enumerate(sample()):
        with subtests.test(case.id):
            folder = tmp_path / str(number)
            folder.mkdir()
            outcome(case, folder)


@pytest.mark.slow
def test_the_whole_corpus_holds_in_one_process_of_bounded_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_the_corpus_is_large() -> None:
    assert len(corpus()) >= 300
    assert len({case.kind for case in corpus()}) >= 15


@pytest.mark.parametrize("name", ["recording: a bomb of 300 MB that is not asked for", "token map: a bomb of 300 MB"])
def test_what_is_not_asked_for_is_not_unpacked(name: str, tmp_path: Path) -> None:
    case = next(case for case in corpus() if case.id == name)
    case.make(tmp_path)
    tracemalloc.start()
    try:
        outcome(Case(case.kind, case.name, lambda _: None, case.read, case.refused), tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()

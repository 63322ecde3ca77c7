"""Try the corpus of hostile files in one process of bounded memory, and print what was tried.

python -m tests.hostile [KIND ...]
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

from .cases import outcome
from .corpus import corpus

MEMORY = 3 << 30  # bytes beyond those in use once everything is imported


def main(*kinds: str) -> int:
    """Print a line for each of these kinds, by default all, and one for each case that failed; returns how many failed."""
    warnings.simplefilter("ignore")
    cases = [case for case in corpus() if not kinds or case.kind in kinds]
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))
    counts: Counter[tuple[str, str]] = Counter()
    began = time.monotonic()
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            try:
                counts[case.kind, outcome(case, Path(folder))] += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                counts[case.kind, "failed"] += 1
                print(f"FAILED {case.id}: {''.join(traceback.format_exception(error, limit=-3))[-1500:]}")
    for kind in dict.fromkeys(case.kind for case in cases):
        parts = ", ".join(f"{counts[kind, what]} {what}" for what in ("refused", "opened", "failed"))
        print(f"{kind}: {parts}")
    n_failed = sum(count for (_, what), count in counts.items() if what == "failed")
    print(f"{len(cases)} hostile files in {time.monotonic() - began:.0f} s: {n_failed} failed")
    return n_failed


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' own helpers
    sys.exit(1 if main(*sys.argv[1:]) else 0)

"""The memory that a model takes which is spread over memory and disk, against the whole one, and how often its weights are read.

    OMP_NUM_THREADS=1 python -m benchmarks.spread

A model of random weights, some 450 MB of float32, is loaded in a process of its own, whole and with bounds on what goes into memory; its
fingerprint is taken, and a prompt is recorded. Peaks are of the resident size, over that of the process before: what is read of a file
counts while it is mapped. Reads are counted where accelerate opens a file; all ways have to give the same numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.record import peak_kib, random_model

TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 10, "num_attention_heads": 12}
TEXT |= {"num_key_value_heads": 6, "head_dim": 64, "mrope_section": [12, 10, 10]}
VISION = {"hidden_size": 384, "depth": 6, "num_heads": 6, "intermediate_size": 1536, "out_hidden_size": 768}
VISION |= {"deepstack_visual_indexes": [1, 3, 5]}
BOUNDS = ("", "200MB", "100MB", "0")
STEPS = ("load", "fingerprint", "record")


def made(folder: Path) -> Path:
    """Save the model of random weights, in files of at most 100 MB."""
    return random_model(folder, TEXT, VISION, "float32", max_shard_size="100MB")


def measured(folder: Path, bound: str) -> dict[str, Any]:
    """Return what loading and recording take in a fresh process; `bound` is what goes into memory, "" loads the model whole."""
    line = [sys.executable, "-m", "benchmarks.spread", "--one", str(folder), bound]
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def one(folder: Path, bound: str) -> None:
    """Print as JSON the peaks in MB, processor seconds and reads of each step, where the weights are, and a hash of the numbers."""
    from accelerate.utils.offload import OffloadedWeightsLoader

    from vlm_analysis import load_model, open_prompts, record

    how: dict[str, Any] = {"device_map": "auto", "max_memory": {"cpu": bound}} if bound else {}
    prompts = open_prompts("general")[:1]
    record(load_model(), prompts)  # all that is imported is in memory
    reads = Counter[str]()
    read = OffloadedWeightsLoader.__getitem__

    def counted(self: Any, key: str) -> Any:
        reads[key] += 1
        return read(self, key)

    OffloadedWeightsLoader.__getitem__ = counted  # type: ignore[method-assign]
    before, results, steps = resident_kib(), list[Any](), dict[str, Any]()
    works: tuple[Callable[[], Any], ...] = (
        lambda: load_model(folder, **how),
        lambda: results[0].fingerprint,
        lambda: record(results[0], prompts),
    )
    for name, work in zip(STEPS, works, strict=True):
        reads.clear()
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        begun = time.process_time()
        results.append(work())
        spent = time.process_time() - begun
        steps[name] = {"peak_mb": (peak_kib() - before) * 1024 / 1e6, "cpu_s": spent}
        steps[name] |= {"weights_read": len(reads), "most_reads": max(reads.values(), default=0)}
    numbers = hashlib.sha256(results[2].rows.tobytes()).hexdigest()
    print(json.dumps({"steps": steps, "places": results[0].places, "numbers": f"{results[1][:16]} {numbers[:16]}"}))


def resident_kib() -> int:
    """Return the resident size of this process, in KiB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "BOUND"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(Path(arguments.one[0]), arguments.one[1])
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = made(Path(scratch) / "model")
        print(
            "| in memory | on disk, MB | peak of loading, MB | of the fingerprint | of recording | loading, s | fingerprint, s | "
            f"recording, s | reads of a weight |\n| --- |{' ---: |' * 8}"
        )
        numbers = set()
        for bound in BOUNDS:
            found = measured(folder, bound)
            steps = [found["steps"][name] for name in STEPS]
            numbers.add(found["numbers"])
            cells = [bound or "all", f"{found['places'].get('disk', 0) / 1e6:.0f}"]
            cells += [f"{step['peak_mb']:.0f}" for step in steps] + [f"{step['cpu_s']:.2f}" for step in steps]
            print(f"| {' | '.join([*cells, ', '.join(str(step['most_reads']) for step in steps)])} |", flush=True)
        assert len(numbers) == 1, "the ways differ"


if __name__ == "__main__":
    main()

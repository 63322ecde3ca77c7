"""The time that a recording and a sweep take with 1, 2 and 3 workers of a Ray cluster, of one thread each, against one process.

    OMP_NUM_THREADS=1 python -m benchmarks.cluster              # 1, 2 and 3 workers
    OMP_NUM_THREADS=1 python -m benchmarks.cluster --workers 1 2

The cluster is on this machine, a node for each worker, so efficiency is bounded by its cores: with c cores, n workers can be at most
min(n, c) times as fast as one, less what this process itself needs to send prompts and to write. Loading the model is not in the times.
Processor time says what the cluster costs beside the work, also where other work shares the cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

MASKS = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
WARM = (13, 2, 1, 0, 14)


@contextmanager
def nodes(n_nodes: int) -> Iterator[str]:
    """Yield the address of a cluster of so many nodes of one CPU on this machine."""
    from vlm_analysis.workbench.cluster.crew import QUIET

    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        os.environ.update(QUIET, RAY_TMPDIR=folder)
        (Path(folder) / "ray").mkdir()
        import ray
        from ray.cluster_utils import Cluster

        local: dict[str, Any] = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=local)
        try:
            for _ in range(n_nodes - 1):
                cluster.add_node(**local)
            cluster.wait_for_nodes()
            yield cluster.address
        finally:
            ray.shutdown()
            cluster.shutdown()


def processor_s() -> tuple[float, float]:
    """Return the seconds of processor time that the workers of a cluster on this machine have taken, and this process."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # one that has just ended
            if (folder / "cmdline").read_bytes().startswith(b"ray::Worker"):
                ticks += sum(map(int, (folder / "stat").read_text().rpartition(") ")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK"), time.process_time()


def times(bench: Any, prompts: Any, n_workers: int = 0) -> list[tuple[float, float, float]]:
    """Return what recording the prompts takes, and scoring masks, once all workers have the model.

    Each is seconds by the clock, and seconds of processor time of the workers and of this process.
    """
    from vlm_analysis import PruneMask

    ready: list[str] = []
    for layer in WARM:
        bench.scores(prompts, [PruneMask(16, (layer,))], on_progress=lambda done, total, message: ready.append(message))
        if not n_workers or any(f"{n_workers} worker" in message for message in ready):
            break
    found = []
    masks = [PruneMask(16, (layer,)) for layer in MASKS]
    for work in (lambda: bench.recording(prompts), lambda: bench.scores(prompts, masks)):
        before, begun = processor_s(), time.monotonic()
        work()
        spent = time.monotonic() - begun
        there, here = (after - first for after, first in zip(processor_s(), before, strict=True))
        found.append((spent, there, here))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3])
    chosen = parser.parse_args().workers
    import torch

    from vlm_analysis import Bench, load_model, open_prompts

    loaded = load_model()
    prompts = (
        open_prompts("math") + open_prompts("general") + open_prompts("math-report") + open_prompts("general-report")
    )
    print(
        f"{len(prompts)} prompts, {len(MASKS)} masks, {torch.get_num_threads()} thread a process, {os.cpu_count()} cores"
    )
    print(
        "| workers | recording, s | sweep, s | efficiency of recording | of the sweep | processor s of recording: workers, this process | "
        "of the sweep |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    with tempfile.TemporaryDirectory() as folder:
        here = times(Bench(loaded, Path(folder)), prompts)
    row("none: one process", here)
    first: list[float] = []
    for n_workers in chosen:
        with tempfile.TemporaryDirectory() as folder, nodes(n_workers) as address:
            bench = Bench(loaded, Path(folder))
            with bench.on_cluster(address):
                found = times(bench, prompts, n_workers)
        first = first or [clock * n_workers for clock, *_ in found]
        row(str(n_workers), found, [one / (n_workers * clock) for one, (clock, *_) in zip(first, found, strict=True)])
    print(f"load: {' '.join(f'{one:.1f}' for one in os.getloadavg())}")


def row(name: str, found: list[tuple[float, float, float]], shares: Sequence[float] = ()) -> None:
    """Print a row of the table."""
    cells = [f"{clock:.2f}" for clock, *_ in found] + ([f"{share:.0%}" for share in shares] or ["", ""])
    cells += [f"{there:.2f} + {here:.2f}" for _, there, here in found]
    print(f"| {' | '.join([name, *cells])} |", flush=True)


if __name__ == "__main__":
    main()

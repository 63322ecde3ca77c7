"""The time that a recording and a sweep take with 1, 2 and 3 workers of a Ray cluster, of one thread each, against one process.

    OMP_NUM_THREADS=1 python -m benchmarks.cluster              # 1, 2 and 3 workers
    OMP_NUM_THREADS=1 python -m benchmarks.cluster --workers 1 2

The cluster is on this machine, a node for each worker, so efficiency is bounded by its cores: with c cores, n workers can be at most
min(n, c) times as fast as one, less what this process itself needs to send prompts and to write. Loading the model is not in the times.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
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


def times(bench: Any, prompts: Any, n_workers: int = 0) -> tuple[float, float]:
    """Return the seconds that recording the prompts and scoring masks takes, once all workers have the model."""
    from vlm_analysis import PruneMask

    ready: list[str] = []
    for layer in WARM:
        bench.scores(prompts, [PruneMask(16, (layer,))], on_progress=lambda done, total, message: ready.append(message))
        if not n_workers or any(f"{n_workers} worker" in message for message in ready):
            break
    begun = time.monotonic()
    bench.recording(prompts)
    between = time.monotonic()
    bench.scores(prompts, [PruneMask(16, (layer,)) for layer in MASKS])
    return between - begun, time.monotonic() - between


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
        "| workers | recording, s | sweep, s | efficiency of recording | of the sweep |\n| --- | --- | --- | --- | --- |"
    )
    with tempfile.TemporaryDirectory() as folder:
        here = times(Bench(loaded, Path(folder)), prompts)
    print(f"| none: one process | {here[0]:.2f} | {here[1]:.2f} | | |", flush=True)
    first: tuple[float, float] | None = None
    for n_workers in chosen:
        with tempfile.TemporaryDirectory() as folder, nodes(n_workers) as address:
            bench = Bench(loaded, Path(folder))
            with bench.on_cluster(address):
                found = times(bench, prompts, n_workers)
        first = first or (found[0] * n_workers, found[1] * n_workers)
        shares = [f"{one / (n_workers * other):.0%}" for one, other in zip(first, found, strict=True)]
        print(f"| {n_workers} | {found[0]:.2f} | {found[1]:.2f} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main()

"""A real Ray cluster of three nodes on loopback: equal to one process bit by bit, and nothing is lost when a node is killed."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from vlm_analysis import Bench, Cancelled, PruneMask, evaluate, load_model, open_prompts, record, sweep
from vlm_analysis.workbench.cluster.crew import QUIET
from vlm_analysis.workbench.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of Ray's own
ROOT = Path(__file__).resolve().parents[2]
EDITS = [PruneMask(16, (layer,)) for layer in (3, 5, 7, 9)]


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, list[Any]]]:
    """A cluster of three nodes of one CPU."""
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with warnings.catch_warnings(action="ignore"):
        import ray
        from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        (Path(folder) / "ray").mkdir()
        local = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=local)
        try:
            others = [cluster.add_node(**local) for _ in range(2)]
            cluster.wait_for_nodes()
            yield cluster, others
        finally:
            ray.shutdown()
            cluster.shutdown()


def test_three_nodes_measure_what_one_process_does_and_a_killed_one_loses_nothing(
    three: tuple[Any, list[Any]], tmp_path: Path
) -> None:
    cluster, doomed = three[0], three[1][:1]
    torch.set_num_threads(1)
    assert os.environ["OMP_NUM_THREADS"] == "1"
    loaded, prompts = load_model(), open_prompts("math") + open_prompts("general")
    said: list[tuple[int, int, str]] = []

    def killing(done: int, total: int, message: str) -> None:
        said.append((done, total, message))
        if doomed and "3 workers" in message and done >= 8:
            cluster.remove_node(doomed.pop(), allow_graceful=False)

    def stop(done: int, total: int, message: str) -> None:
        if done:
            raise Cancelled

    bench = Bench(loaded, Workspace(tmp_path))
    with bench.on_cluster(cluster.address):
        recording = bench.recording(prompts, on_progress=killing)
        assert not doomed
        assert any("2 workers" in message for *_, message in said)
        here = [(done, total) for done, total, message in said if message == "recording"]
        assert here, "the rows were not put together"
        assert all(done == total for done, total in here), "what the killed node had was measured here"
        assert recording.rows.tobytes() == record(loaded, prompts).rows.tobytes()
        with pytest.raises(Cancelled):
            bench.scores(prompts, EDITS, on_progress=stop)
        scores = bench.scores(prompts, EDITS)
        dense = bench.dense(prompts)
    expected = evaluate(loaded, prompts)
    pd.testing.assert_frame_equal(dense.by_prompt, expected.by_prompt, check_exact=True)
    for one, other in zip(scores, sweep(loaded, prompts, EDITS, reference=expected), strict=True):
        pd.testing.assert_frame_equal(one.by_prompt, other.by_prompt, check_exact=True)

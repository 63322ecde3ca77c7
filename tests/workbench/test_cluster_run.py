"""A real Ray cluster of three nodes on loopback: equal to one process bit by bit, and nothing is lost when a node is killed."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from vlm_analysis import (
    Adapt,
    Bench,
    Cancelled,
    Edit,
    Fold,
    LoadedModel,
    PruneMask,
    Replace,
    Tensors,
    evaluate,
    load_model,
    open_prompts,
    record,
    sweep,
)
from vlm_analysis.assets import asset
from vlm_analysis.workbench.cluster.crew import QUIET
from vlm_analysis.workbench.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of Ray's own
ROOT = Path(__file__).resolve().parents[2]
EDITS = [PruneMask(16, (layer,)) for layer in (3, 5, 7, 9)]


def learnt(loaded: LoadedModel) -> list[Edit]:
    """Edits with tensors of every kind that travels: a map folded into a weight, an update of one, and the weights of a layer."""
    draw, up = np.random.default_rng(0), "13.mlp.up_proj"
    layer = loaded.model.get_decoder().layers[6]
    fold = Fold(12, Tensors.of({"mlp.down_proj": np.eye(96) + 0.3 * draw.normal(size=(96, 96))}))
    update = {f"{up}.A": draw.normal(size=(2, 96)), f"{up}.B": draw.normal(size=(288, 2))}
    replace = Replace((4, 5), Tensors.of({name: value.numpy() for name, value in layer.state_dict().items()}))
    return [Edit(16, (one,)) for one in (fold, Adapt(Tensors.of(update), (up,), 0.5), replace)]


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


def test_a_model_of_a_folder_is_searched_and_scanned_and_what_edits_learnt_travels(
    three: tuple[Any, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm_analysis.evaluation.run.scan.batch_for", lambda loaded: 2)  # nine parts
    torch.set_num_threads(1)
    shutil.copytree(asset("pocket-vl"), tmp_path / "model")
    prompts = open_prompts("math")[:9] + open_prompts("general")[:9]
    here, there = (Bench(str(tmp_path / "model"), Workspace(tmp_path / name)) for name in ("here", "there"))
    edits = learnt(here.loaded())
    told: list[int] = []

    def stop(done: int, total: int, message: str) -> None:
        if list((tmp_path / "there" / "unfinished").glob("*/*.npz")):
            raise Cancelled

    def tell(done: int, total: int, message: str) -> None:
        if "edits" in message:
            told.append(done)

    with there.on_cluster(three[0].address):
        for one, other in zip(there.scores(prompts, edits), here.scores(prompts, edits), strict=True):
            pd.testing.assert_frame_equal(one.by_prompt, other.by_prompt, check_exact=True)
            assert one.by_prompt["kl_to_dense"].max() > 1e-4, f"{one.edit.words()} changes nothing"
        for name, values in here.damage(prompts).values.items():
            np.testing.assert_array_equal(there.damage(prompts).values[name], values)
        with pytest.raises(Cancelled):
            there.measure_scan(prompts, on_progress=stop)
        scan = there.measure_scan(prompts, on_progress=tell)
        search = there.search(prompts, "greedy", 2)
    assert told[0] > 0, "the scan began again"
    assert scan.path.read_bytes() == here.measure_scan(prompts).path.read_bytes()
    assert there.open(search) == here.open(here.search(prompts, "greedy", 2))

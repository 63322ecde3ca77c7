"""Work for a cluster before it leaves: addresses, room for workers, parts, and messages that arrive as they were sent or are refused."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vlm_analysis import Adapt, Edit, Fold, Prompt, PromptSet, PruneMask, Replace, Tensors, cli
from vlm_analysis.edits.learnt import Learnt
from vlm_analysis.errors import ClusterError
from vlm_analysis.guard.schema import fields, whole
from vlm_analysis.workbench.cluster.crew import check_address, connected, places
from vlm_analysis.workbench.cluster.doors import chunks_of
from vlm_analysis.workbench.cluster.messages import (
    edits_in,
    packed,
    packed_edits,
    packed_prompts,
    prompts_in,
    unpacked,
)

NUMBER = fields({"n": whole()})


@pytest.fixture
def prompts() -> list[Prompt]:
    draw = np.random.default_rng(0)
    pictures = [Image.fromarray(draw.integers(0, 256, (8, 9, 3), dtype=np.uint8)) for _ in range(3)]
    return list(PromptSet([Prompt((one,), "What?", "shapes", f"p{n}", "a") for n, one in enumerate(pictures)]))


def test_an_address_is_auto_or_a_host_with_a_port() -> None:
    for right in ("auto", "10.0.0.5:6379", "node-1.local:6379", "[::1]:6379"):
        assert check_address(f" {right} ") == right
    for wrong in ("", "10.0.0.5", "ray://10.0.0.5:10001", "a b:1", "host:", "http://x:1/"):
        with pytest.raises(ClusterError, match="expected auto, or host:port"):
            check_address(wrong)


def test_there_is_a_worker_for_each_gpu_or_for_each_so_many_cpus_of_a_node_that_lives() -> None:
    nodes: list[dict[str, Any]] = [
        {"Alive": True, "Resources": {"CPU": 7.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
        {"Alive": True, "Resources": {}},
    ]
    assert [places(nodes, threads, gpu=False) for threads in (1, 2, 4, 8)] == [10, 4, 1, 0]
    assert places(nodes, 4, gpu=True) == 2


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [4, 4, 4, 4, 4, 1]), (2, [16, 5]), (8, [16, 5])])
def test_parts_of_a_recording_are_whole_batches(batch_size: int, sizes: list[int]) -> None:
    keyed: list[Any] = [(str(number), None) for number in range(21)]
    parts = chunks_of(keyed, batch_size, 16)
    assert [len(part) for part in parts] == sizes
    assert [one for part in parts for one in part] == keyed
    assert chunks_of([], batch_size, 16) == []


def test_values_and_files_arrive_as_they_were_sent_and_equal_ones_in_equal_bytes(tmp_path: Path) -> None:
    sent, there = tmp_path / "sent", tmp_path / "there"
    (sent / "inner").mkdir(parents=True)
    (sent / "inner" / "rows.bin").write_bytes(bytes(range(256)))
    data = packed({"n": 3}, sent)
    assert data == packed({"n": 3}, sent)
    assert unpacked(data, NUMBER, there) == {"n": 3}
    assert (there / "inner" / "rows.bin").read_bytes() == bytes(range(256))


def test_a_message_that_is_cut_changed_or_of_others_is_refused(tmp_path: Path) -> None:
    whole_one, other = packed({"n": 3}), io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("meta.json", '{"n": 3}')
        archive.writestr("files/../../out", "x")
    for data in (b"", whole_one[:-5], whole_one[20:], packed({"n": "x"}), packed({}), b"\x80\x04N."):
        with pytest.raises(ClusterError, match="cannot be read"):
            unpacked(data, NUMBER)
    with pytest.raises(ClusterError, match="cannot be read"):
        unpacked(other.getvalue(), NUMBER, tmp_path / "in" / "it")
    assert not (tmp_path / "out").exists()


def test_prompts_arrive_with_their_pixels_and_others_are_refused(prompts: list[Prompt], tmp_path: Path) -> None:
    keys = [*PromptSet(prompts).row_keys]
    unpacked(packed_prompts({"n": 1}, prompts), NUMBER, tmp_path / "first")
    found = prompts_in(tmp_path / "first", keys)
    assert [one.key for one in found] == [one.key for one in prompts]
    assert [one.id for one in found] == ["p0", "p1", "p2"]
    # those of a workspace, whose files are copied as they lie
    again = packed_prompts({"n": 1}, found)
    unpacked(again, NUMBER, tmp_path / "second")
    assert [one.key for one in prompts_in(tmp_path / "second", keys)] == [one.key for one in prompts]
    with pytest.raises(ClusterError, match="arrived changed"):
        prompts_in(tmp_path / "second", keys[::-1])


def test_edits_arrive_with_what_they_learnt_as_files_of_safetensors() -> None:
    weight, mask = np.arange(4, dtype=np.float32).reshape(2, 2), PruneMask(6, (1,))
    fold = Fold(0, Tensors.of({"down": weight}), learnt_on=mask.key)
    adapt = Adapt(Tensors.of({"0.up.A": weight, "0.up.B": weight + 1}), ("0.up",), learnt_on=mask.key)
    replace = Replace((3, 4), Tensors.of({"norm.weight": weight[0]}))
    edits = [mask, Edit(6, (*mask.changes, fold)), Edit(6, (*mask.changes, adapt)), Edit(6, (replace,))]
    data = packed_edits(edits)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        endings = [Path(name).suffix for name in archive.namelist()]
    assert (set(endings), endings.count(".safetensors")) == ({".json", ".safetensors"}, 3)
    with edits_in(data, fields({})) as found:
        assert [one.key for one in found] == [one.key for one in edits]
        sent, there = (
            [one for edit in them for one in edit.changes if isinstance(one, Learnt)] for them in (edits, found)
        )
        for one, other in zip(sent, there, strict=True):
            assert one == other
            for name, values in one.tensors.read().items():
                np.testing.assert_array_equal(other.tensors.read()[name], values)


def test_without_ray_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"pip install '\.\[cluster\]'"), connected("auto"):
        pass


def test_the_command_line_refuses_what_is_no_address_before_it_loads_a_model() -> None:
    contest = ["contest", "general", "--report", "math"]
    for words in (
        ["record", "general"],
        ["sweep", "general", "4"],
        ["search", "general"],
        ["scan", "general"],
        contest,
    ):
        done = CliRunner().invoke(cli.strata, [*words, "--cluster", "10.0.0.5"])
        assert (done.exit_code, "expected auto, or host:port" in done.output) == (2, True), done.output
        assert "reading the weights" not in done.output

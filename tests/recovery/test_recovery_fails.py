"""What ends a repair or a fine-tuning ends it in one message; the dense model, its flags and hooks, and the workspace stay as they were."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tuned import CUT, SHORT, state_of

from vlm_analysis import Bench, Cancelled, Edit, LoadedModel, PromptSet, finetune, repair
from vlm_analysis.errors import EditError, PromptError, StrataError
from vlm_analysis.workbench.workspace import Workspace


def tune(loaded: LoadedModel, edit: Edit, prompts: Any, **options: Any) -> Edit:
    return finetune(loaded, edit, prompts, **SHORT, **options)


RECOVERIES = pytest.mark.parametrize("recover", [repair, tune])


@pytest.fixture(autouse=True)
def _dense_model_is_untouched(small: LoadedModel) -> Iterator[None]:
    before = state_of(small.model)
    yield
    assert state_of(small.model) == before


def failing(real: Callable[..., Any], error: Exception, after: int) -> Callable[..., Any]:
    """Return a function that does as the real one so many times, then raises."""
    left = iter(range(after))

    def call(*given: Any, **named: Any) -> Any:
        if next(left, None) is None:
            raise error
        return real(*given, **named)

    return call


@RECOVERIES
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
    ],
)
@pytest.mark.parametrize("after", [0, 150])
def test_memory_that_runs_out_in_a_layer(
    small: LoadedModel,
    few: PromptSet,
    monkeypatch: pytest.MonkeyPatch,
    recover: Callable[..., Edit],
    error: Exception,
    after: int,
) -> None:
    monkeypatch.setattr(torch.nn.functional, "linear", failing(torch.nn.functional.linear, error, after))
    with pytest.raises(
        EditError, match=r"could not be \w+: expected enough memory, got less than it took\. Nothing was"
    ):
        recover(small, CUT, few[:4])


def test_memory_that_runs_out_for_the_sums(small: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "addmm_", failing(torch.Tensor.addmm_, MemoryError(), 1))
    with pytest.raises(EditError, match="could not be repaired: expected enough memory"):
        repair(small, CUT, few[:2])


@RECOVERIES
def test_an_error_that_is_none_of_memory_is_not_hidden(
    small: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch, recover: Callable[..., Edit]
) -> None:
    monkeypatch.setattr("vlm_analysis.models.inputs.EncodedPrompts.__getitem__", failing(len, KeyError("mine"), 0))
    with pytest.raises(KeyError, match="mine"):
        recover(small, CUT, few[:4])


@RECOVERIES
def test_a_quantised_model(
    small: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch, recover: Callable[..., Edit]
) -> None:
    monkeypatch.setattr(LoadedModel, "quantiser", property(lambda _: "torchao"))
    with pytest.raises(EditError, match=r"got ones quantised with torchao\. Load the original"):
        recover(small, CUT, few[:4])


@RECOVERIES
@pytest.mark.parametrize("step", range(3))
def test_a_stop_wherever_it_comes(small: LoadedModel, few: PromptSet, recover: Callable[..., Edit], step: int) -> None:
    calls = iter(range(step))

    def stop(done: int, total: int, message: str) -> None:
        if next(calls, None) is None:
            raise Cancelled

    with pytest.raises(Cancelled):
        recover(small, CUT, few[:4], on_progress=stop)


@RECOVERIES
def test_no_prompts(small: LoadedModel, recover: Callable[..., Edit]) -> None:
    with pytest.raises(PromptError):
        recover(small, CUT, [])


def test_one_prompt_without_an_answer_is_enough_for_a_repair(small: LoadedModel, few: PromptSet) -> None:
    asked = PromptSet([few[0]])
    assert repair(small, CUT, asked).provenance["repair"]["n_prompts"] == 1


@pytest.mark.parametrize("how", ["ridge", "small"])
def test_a_full_disk(
    small: LoadedModel, few: PromptSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    bench = Bench(small, Workspace(tmp_path / "home"))
    bench.recover(CUT, few, "scale")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Path, "write_bytes", failing(Path.write_bytes, full, 0))
    with pytest.raises(StrataError, match=r"No space left on device|full disk") as caught:
        bench.recover(CUT, few, how, **(SHORT if how == "small" else {}))
    assert "Free" in str(caught.value)
    monkeypatch.undo()
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()} - set(before)
    assert not left
    assert [item.name for item in bench.workspace.items("masks")] == ["drops layers 4 and 5, repaired (scale)"]

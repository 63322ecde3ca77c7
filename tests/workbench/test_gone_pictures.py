"""A prompt whose picture is gone when its set is saved is set aside by name with its reason, and all others go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlm_analysis import Bench, LoadedModel, Prompt, PromptSet, PruneMask, cli
from vlm_analysis.errors import PromptError
from vlm_analysis.workbench.shelf import keep_prompts, open_item
from vlm_analysis.workbench.workspace import Workspace

MASK = PruneMask(16, (5, 9))
REASON = "gone.png' could not be read: expected a file, got nothing there"


def with_gone(few: PromptSet, folder: Path, *, read_before: bool = False) -> PromptSet:
    """Three prompts by hand, of which the second one's picture is deleted: before it was ever read, or after."""
    picture = folder / "gone.png"
    few[2].load_images()[0].save(picture)
    prompts = PromptSet([few[0], Prompt((picture,), "how many?", "math", "gone", "1"), few[3]])
    if read_before:
        _ = prompts.fingerprint
    picture.unlink()
    return prompts


@pytest.mark.parametrize("read_before", [False, True])
def test_the_others_are_saved_and_the_gone_one_comes_back_by_name(
    few: PromptSet, tmp_path: Path, read_before: bool
) -> None:
    shelf, prompts = Workspace(), with_gone(few, tmp_path, read_before=read_before)
    item = keep_prompts(shelf, prompts, "mine")
    assert item.prompts == prompts.fingerprint
    assert item.details["n"] == 2
    opened = open_item(item)
    assert [prompt.id for prompt in opened] == [few[0].id, few[3].id]
    assert opened.fingerprint == prompts.fingerprint
    assert list(opened.set_aside) == ["gone"]
    assert opened.set_aside["gone"].startswith("Prompt 'gone' cannot be asked: ")
    assert REASON in opened.set_aside["gone"]
    again = [keep_prompts(shelf, one, "mine") for one in (with_gone(few, tmp_path, read_before=read_before), opened)]
    assert [one.id for one in again] == [item.id] * 2
    assert keep_prompts(shelf, PromptSet([few[0], few[3]]), "mine").prompts != item.prompts
    shown = CliRunner().invoke(cli.strata, ["show", item.id])
    assert "1 of 3 prompts was set aside:" in shown.output
    assert REASON in " ".join(shown.output.split())


def test_a_picture_that_was_replaced_is_set_aside_too(few: PromptSet, tmp_path: Path) -> None:
    prompts = with_gone(few, tmp_path, read_before=True)
    few[1].load_images()[0].save(tmp_path / "gone.png")
    opened = open_item(keep_prompts(Workspace(), prompts, "mine"))
    assert "expected the pixels that were read first, got others" in opened.set_aside["gone"]


def test_a_set_of_gone_pictures_only_says_so(few: PromptSet, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"^Prompt 'gone' cannot be asked: "):
        keep_prompts(Workspace(), with_gone(few, tmp_path)[1:2], "mine")
    two = PromptSet(Prompt((tmp_path / f"{name}.png",), "?", id=name) for name in ("a", "b"))
    with pytest.raises(PromptError, match=r"^None of the 2 prompts can be asked: .*'a' .*'b' "):
        keep_prompts(Workspace(), two, "mine")


def test_a_damaged_list_of_those_set_aside_is_said(few: PromptSet, tmp_path: Path) -> None:
    item = keep_prompts(Workspace(), with_gone(few, tmp_path), "mine")
    note = item.path / "set_aside.json"
    content = json.loads(note.read_text())
    content["rows"][0][0] = -1
    note.write_text(json.dumps(content))
    with pytest.raises(PromptError, match=r"set_aside.json is not a whole .*-1"):
        open_item(item)
    note.unlink()
    with pytest.raises(PromptError, match="is damaged: expected 2 prompts as they were saved"):
        open_item(item)


@pytest.mark.parametrize("read_before", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_bench_records_scores_and_compares_the_others(
    loaded: LoadedModel, few: PromptSet, tmp_path: Path, read_before: bool
) -> None:
    prompts, bench = with_gone(few, tmp_path, read_before=read_before), Bench(loaded)
    recording = bench.recording(prompts)
    dense, pruned = bench.scores(prompts, [PruneMask(16), MASK])
    comparison = bench.open(bench.compare(prompts, criteria=["block-influence"], strategies=["first-k"], most=1))
    evaluation = bench.open(bench.evaluate(prompts, MASK, responses=True))
    for value in (recording, bench.recording(prompts), dense, pruned, comparison.dense, evaluation):
        assert list(value.set_aside) == ["gone"]
        assert REASON in value.set_aside["gone"]
        assert value.prompts == prompts.fingerprint
    assert recording.prompt_ids == tuple(pruned.by_prompt["id"]) == (few[0].id, few[3].id)
    assert comparison.chosen_on == prompts.fingerprint
    assert len(bench.workspace.items("prompts")) == len(bench.workspace.items("recordings")) == 1
    with pytest.raises(PromptError, match="'gone'"):
        bench.ask(prompts[1], MASK)
    assert bench.ask(prompts[0], MASK).dense

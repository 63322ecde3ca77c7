"""The model card: mask, evidence and the way to make it again, in Markdown that user text cannot break."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from vlm_analysis import Evaluation, LoadedModel, PromptSet, PruneMask, evaluate, export_checkpoint, retention
from vlm_analysis.errors import EvaluationError, ExportError
from vlm_analysis.export.card import model_card, reproduction_command
from vlm_analysis.model_info import ModelInfo

MASK = PruneMask(16, (5, 9))
INFO = ModelInfo("owner/model", "f" * 64, 16, revision="abc")


@pytest.fixture(scope="module")
def scores(loaded: LoadedModel, few: PromptSet) -> tuple[Evaluation, Evaluation]:
    dense = evaluate(loaded, few)
    return evaluate(loaded, few, MASK, reference=dense), dense


def test_the_table_holds_what_was_evaluated(scores: tuple[Evaluation, Evaluation]) -> None:
    pruned, dense = scores
    card = model_card(MASK, INFO, "command", pruned, dense)
    rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| `")]
    kept = retention(pruned, dense)
    assert [row[:2] for row in rows] == [["`math`", "3"], ["`general`", "3"]]
    for row, (domain, told) in zip(rows, pruned.by_domain.iterrows(), strict=True):
        assert row[2:5] == [f"{told['exact_match']:.1%}", f"{kept[domain]:.1%}", f"{told['answer_nll']:.4f}"]
    assert f"fingerprint `{pruned.prompts[:16]}`" in card


def test_without_the_dense_evaluation_there_is_no_retention(scores: tuple[Evaluation, Evaluation]) -> None:
    assert "| retention |" not in model_card(MASK, INFO, "command", scores[0])
    assert "exported without an evaluation" in model_card(MASK, INFO, "command")


def test_user_text_breaks_neither_the_table_nor_the_list(scores: tuple[Evaluation, Evaluation]) -> None:
    odd = replace(scores[0], by_prompt=scores[0].by_prompt.assign(domain="a|b`c\n# d"))
    named = replace(MASK, name="`<b>\n# x", notes="# head\n```")
    lines = model_card(named, INFO, "command", odd).splitlines()
    assert "| `a¦b'c # d` | 6 |" in next(line for line in lines if "a¦b" in line)
    assert [line for line in lines if line.startswith("#")] == [
        "# 14 of 16 decoder layers of a vision-language model", "## Evidence", "## Make it again",
    ]  # fmt: skip


@pytest.mark.parametrize("source", ["owner/model", './it\'s "here" \\n $HOME `x`', "./näme 😀"])
def test_the_command_is_one_shell_word_of_python_whatever_the_source_is_called(source: str) -> None:
    python, flag, code = shlex.split(reproduction_command(source, INFO))
    assert (python, flag) == ("python", "-c")
    found: list[object] = []
    made = code[code.index("loaded = ") :].replace("export_checkpoint", "found.append")
    exec(made.split(";")[0], {"load_model": lambda *args, **kwargs: found.extend([args, kwargs])})
    assert found == [(source,), {"revision": "abc", "dtype": "float32"}]


def test_an_export_with_evidence_tells_it(
    loaded: LoadedModel, scores: tuple[Evaluation, Evaluation], tmp_path: Path
) -> None:
    export_checkpoint(loaded, MASK, tmp_path / "pruned", verify=False, evidence=scores[0], reference=scores[1])
    card = (tmp_path / "pruned" / "README.md").read_text()
    assert "| domain | n | exact match | retention |" in card
    assert str(tmp_path) not in card


def test_evidence_of_another_mask_or_prompts_is_refused(
    loaded: LoadedModel, few: PromptSet, scores: tuple[Evaluation, Evaluation], tmp_path: Path
) -> None:
    pruned, dense = scores
    with pytest.raises(ExportError, match=r"that drops layer 3, got one of pocket-vl that drops layers 5 and 9"):
        export_checkpoint(loaded, PruneMask(16, (3,)), tmp_path / "pruned", evidence=pruned)
    with pytest.raises(ExportError, match="one that drops layers 5 and 9"):
        export_checkpoint(loaded, MASK, tmp_path / "pruned", evidence=pruned, reference=pruned)
    with pytest.raises(EvaluationError, match="different prompt sets"):
        export_checkpoint(loaded, MASK, tmp_path / "pruned", evidence=pruned, reference=replace(dense, prompts="other"))
    assert list(tmp_path.iterdir()) == []

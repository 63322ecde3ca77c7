"""lm-evaluation-harness runs an exported task and gives Strata's scores, prompt by prompt, on a dense and on an exported model."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from outside import END, noise, save_outside_model

from vlm_analysis import (
    LoadedModel,
    Prompt,
    PromptSet,
    PruneMask,
    apply_edit,
    evaluate,
    export_checkpoint,
    export_task,
    load_model,
)
from vlm_analysis.models.decoding import decode, greedy_ids
from vlm_analysis.models.inputs import answer_tokens

MASK = PruneMask(6, (2,))
SCORES = ("exact_match", "normalised_match", "numeric_match")


def talkative(folder: Path) -> Path:
    """Save a tiny LLaVA that ends its answers: where it would write w15, which it likes, it writes its end token."""
    save_outside_model("llava", folder)
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    model, tokenizer = LlavaForConditionalGeneration.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    liked, end = tokenizer.convert_tokens_to_ids(["w15", END])
    with torch.no_grad():
        weight = model.get_output_embeddings().weight
        weight[end] = 1.1 * weight[liked]
    model.save_pretrained(folder)
    return folder


def asked(loaded: LoadedModel) -> PromptSet:
    """Return prompts whose answers are, in turn, what the dense model writes, what the pruned one writes, and neither."""
    models = loaded.model, apply_edit(loaded.model, MASK)
    prompts: list[Prompt] = []
    for number in range(40):
        prompt = Prompt((noise(number),), f"w{number + 1} w7" + " w8" * (number % 4), "noise", f"p{number}")
        tokens = [greedy_ids(loaded, model, prompt, 8) for model in models]
        texts = [decode(loaded, one) for one in tokens]
        is_plain = all(answer_tokens(loaded, text) == tuple(one) for text, one in zip(texts, tokens, strict=True))
        if is_plain and all(texts) and texts[0] != texts[1]:
            accepted = (*texts, "w1")[len(prompts) % 3]
            answers = ("w2 w2", accepted) if len(prompts) % 2 else (accepted,)
            prompts.append(replace(prompt, answer=answers[0], answers=answers))
        if len(prompts) == 8:
            break
    assert len(prompts) >= 6
    return PromptSet(prompts)


def run_by_harness(line: str, cache: Path) -> dict[str, dict[str, Any]]:
    """Run a command of the task as it stands, with this Python; return its samples by the prompt's id."""
    _, folder, _, command, *words = shlex.split(line)
    assert command == "lm_eval"
    here = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "PYTHONPATH": here}
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *words, "--device", "cpu"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    out = Path(folder, words[words.index("--output_path") + 1])
    (samples,) = out.rglob("samples_*.jsonl")
    rows = [json.loads(row) for row in samples.read_text("utf-8").splitlines()]
    return {row["doc"]["id"]: row for row in rows}


@pytest.mark.slow  # two runs of a harness, each with an import of torch and of the harness
def test_the_harness_gives_strata_s_scores_prompt_by_prompt(tmp_path: Path) -> None:
    assert find_spec("lm_eval"), "Install requirements-slow.txt."
    loaded = load_model(talkative(tmp_path / "dense"), dtype="float32")
    prompts = asked(loaded)
    export_checkpoint(loaded, MASK, tmp_path / "pruned")
    dense = evaluate(loaded, prompts, responses=True)
    pruned = evaluate(loaded, prompts, MASK, reference=dense, responses=True)
    models = {"dense": str(tmp_path / "dense"), "edited": str(tmp_path / "pruned")}
    task = export_task(prompts, tmp_path / "task", **models, dtype="float32", matches=True)
    for line, evaluation in zip(task.commands[::2], (dense, pruned), strict=True):
        samples = run_by_harness(line, tmp_path / "cache")
        table = evaluation.by_prompt.set_index("id")
        assert set(table["exact_match"]) == {True, False}  # some right, some wrong
        assert set(samples) == set(table.index)
        for name, row in samples.items():
            assert row["filtered_resps"] == [table["response"][name]], name
            assert [row[score] for score in SCORES] == [float(table[score][name]) for score in SCORES], name
    assert list(dense.by_prompt["exact_match"]) != list(pruned.by_prompt["exact_match"])

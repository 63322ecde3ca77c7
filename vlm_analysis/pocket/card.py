"""The quality card of the bundled model and the prompt packs, both made from held-out drawings only."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers

from vlm_analysis.evaluation.run.evaluate import evaluate
from vlm_analysis.models.load import load_model
from vlm_analysis.pocket.pictures import is_reserved_pair
from vlm_analysis.pocket.tasks import (
    GENERAL,
    HELD_OUT_PER_DOMAIN,
    MATH,
    PACK_PER_DOMAIN,
    TASKS,
    Example,
    make_examples,
)
from vlm_analysis.progress import Progress
from vlm_analysis.prompts.opening import REPORT
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.prompts.writing import write_prompts

RUN_FILE = "training.json"
CURVE_FILE = "curve.jsonl"
BARS = {GENERAL: 0.95, MATH: 0.90}


def as_prompts(examples: list[Example]) -> PromptSet:
    """Return drawn examples as prompts; the id names task, split and seed."""
    return PromptSet(
        Prompt((example.image,), example.question, example.domain, f"{example.task}-{example.seed}", example.answer)
        for example in examples
    )


def write_packs(folder: Path) -> None:
    """Write the bundled prompt packs, two folders per domain: one to choose masks on, and one to report them on.

    The second is the end of the held-out examples, which training never used either.
    """
    for domain in (GENERAL, MATH):
        write_prompts(as_prompts(make_examples(domain, PACK_PER_DOMAIN, split="pack")), folder / domain)
        held_out = make_examples(domain, HELD_OUT_PER_DOMAIN)[-PACK_PER_DOMAIN:]
        write_prompts(as_prompts(held_out), folder / f"{domain}{REPORT}")


def measure(
    model_folder: Path, *, per_domain: int = HELD_OUT_PER_DOMAIN, on_progress: Progress | None = None
) -> pd.DataFrame:
    """Return exact match on held-out examples per task: columns domain, exact_match, answer_nll, n; indexed by task."""
    loaded = load_model(model_folder)
    examples = make_examples(GENERAL, per_domain) + make_examples(MATH, per_domain)
    scores = evaluate(loaded, as_prompts(examples), batch_size=32, on_progress=on_progress).by_prompt
    scores["task"] = [example.task for example in examples]
    groups = scores.groupby("task", sort=False)
    table = groups[["exact_match", "answer_nll"]].mean().astype(float)
    table.insert(0, "domain", [TASKS[str(task)].domain for task in table.index])
    return table.assign(n=groups.size())


def write_card(model_folder: Path, *, on_progress: Progress | None = None) -> pd.DataFrame:
    """Measure the model in `model_folder`, write its README.md there and return the table per task."""
    table = measure(model_folder, on_progress=on_progress)
    run = _read_run(model_folder)
    (model_folder / "README.md").write_text(card_text(table, run), "utf-8")
    return table


def domain_accuracy(table: pd.DataFrame) -> pd.Series:
    """Return exact match per domain over all its examples."""
    right = (table["exact_match"] * table["n"]).groupby(table["domain"], sort=False).sum()
    return right / table.groupby("domain", sort=False)["n"].sum()


def card_text(table: pd.DataFrame, run: dict[str, Any]) -> str:
    """Return the quality card: data, recipe, time, hardware, accuracy per task with n, and limits."""
    rows = [
        f"| {task} | {row.domain} | {row.exact_match:.1%} | {row.answer_nll:.3f} | {row.n} |"
        for task, row in table.iterrows()
    ]
    domains = domain_accuracy(table)
    counts = table.groupby("domain", sort=False)["n"].sum()
    summary = [
        f"| **{domain}** | **{domains[domain]:.1%}** | {BARS[domain]:.0%} | {counts[domain]} |"
        for domain in (GENERAL, MATH)
    ]
    pairs = [e.picture for e in make_examples(MATH, HELD_OUT_PER_DOMAIN) if e.task in ("sum-read", "sum-solve")]
    unseen = sum(is_reserved_pair(p.left, p.right) for p in pairs)  # type: ignore[union-attr]
    return _CARD.format(
        summary="\n".join(summary),
        rows="\n".join(rows),
        deepstack=_DEEPSTACK[run.get("recipe", {}).get("deepstack", True)],
        parameters=run.get("parameters", "?"),
        steps=run.get("step", "?"),
        hours=f"{run.get('seconds', 0) / 3600:.1f}",
        hardware=run.get("hardware", "?"),
        recipe=json.dumps(run.get("recipe", {})),
        unseen=unseen,
        sums=len(pairs),
        measured=datetime.now(UTC).date().isoformat(),
        versions=f"torch {torch.__version__}, transformers {transformers.__version__}",
    )


def hardware() -> str:
    """Return the hardware of this process, in words."""
    return f"{torch.get_num_threads()} CPU threads ({platform.machine()})"


def _read_run(model_folder: Path) -> dict[str, Any]:
    path = model_folder / RUN_FILE
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


_DEEPSTACK = {True: "DeepStack after\ndecoder layers 0 and 1", False: "no\nDeepStack"}
_CARD = """# Pocket-VL

A small vision-language model of the Qwen3-VL architecture ({parameters} parameters, 16 decoder layers, \
{deepstack}), trained from random weights on drawn 64×64 pictures so that Strata can show its whole job with no
download. **Findings on it say nothing about large models.**

## Quality

Greedy exact match, the whole answer and its end, on held-out drawings; measured {measured} with {versions} by
`python -m vlm_analysis.pocket card`.

| domain | exact match | bar | n |
| --- | --- | --- | --- |
{summary}

| task | domain | exact match | NLL (nats a token) | n |
| --- | --- | --- | --- | --- |
{rows}

`sum-read` reads a written sum, `sum-solve` reads and solves it; `count-steps` and `bar-steps` answer step by step ("step 1:
2 circles. step 2: 3 squares. therefore 5").

## Data

Pictures are drawn from seeds: 1 to 9 coloured shapes on a 4×4 grid, bar charts of four bars, and written sums of two
two-digit numbers. Held-out means held out by content: training drops every (image, question) that is in the held-out set,
the training monitor or the bundled prompt packs. {unseen} of the {sums} held-out sums are of number pairs that training never shows
in any picture (about one pair in ten is kept back).

## Recipe

Muon on the matrices, AdamW on the rest, warm-up, constant rate, linear decay; several questions about one picture packed
into one sequence. {steps} steps in {hours} hours of computing on {hardware}. Recipe: `{recipe}`.
Accuracy while training: `curve.jsonl`. Train it again with `python -m vlm_analysis.pocket train`.
"""

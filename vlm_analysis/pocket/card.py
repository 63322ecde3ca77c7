"""The quality cards of the bundled models and the prompt packs, both made from held-out drawings only."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers

from vlm_analysis.evaluation.run.evaluate import evaluate
from vlm_analysis.models.load import load_model
from vlm_analysis.pocket.pictures import WrittenSum, is_reserved_pair
from vlm_analysis.pocket.tasks import (
    DOMAINS,
    GENERAL,
    HELD_OUT_PER_DOMAIN,
    MATH,
    PACK_SIZES,
    STEPS,
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
MISSED_FILE = "missed.json"
BARS = {GENERAL: 0.95, MATH: 0.90, STEPS: 0.80}


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
    for domain in DOMAINS:
        write_prompts(as_prompts(make_examples(domain, PACK_SIZES[domain], split="pack")), folder / domain)
        held_out = make_examples(domain, HELD_OUT_PER_DOMAIN)[-PACK_SIZES[domain] :]
        write_prompts(as_prompts(held_out), folder / f"{domain}{REPORT}")


def measure(
    model_folder: Path,
    *,
    domains: Sequence[str] = (GENERAL, MATH),
    per_domain: int = HELD_OUT_PER_DOMAIN,
    on_progress: Progress | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """Return exact match on held-out examples per task, and the ids of those that were answered wrongly.

    The table's columns are domain, exact_match, answer_nll (nats a token) and n; its index is the task.
    """
    loaded = load_model(model_folder)
    examples = [example for domain in domains for example in make_examples(domain, per_domain)]
    scores = evaluate(loaded, as_prompts(examples), batch_size=32, on_progress=on_progress).by_prompt
    scores["task"] = [example.task for example in examples]
    groups = scores.groupby("task", sort=False)
    table = groups[["exact_match", "answer_nll"]].mean().astype(float)
    table.insert(0, "domain", [TASKS[str(task)].domain for task in table.index])
    missed = [f"{e.task}-{e.seed}" for e, right in zip(examples, scores["exact_match"], strict=True) if not right]
    return table.assign(n=groups.size()), missed


def write_card(model_folder: Path, *, on_progress: Progress | None = None) -> pd.DataFrame:
    """Measure the model in `model_folder`, write its README.md there and return the table per task.

    Of a model that answers in steps the ids of the held-out examples that it misses are written too, beside the card.
    """
    run = _read_run(model_folder)
    in_steps = bool(run.get("recipe", {}).get("steps_share"))
    domains = DOMAINS if in_steps else (GENERAL, MATH)
    table, missed = measure(model_folder, domains=domains, on_progress=on_progress)
    if in_steps:
        (model_folder / MISSED_FILE).write_text(json.dumps(missed, indent=1) + "\n", "utf-8")
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
        for domain in counts.index
    ]
    in_steps = bool(run.get("recipe", {}).get("steps_share"))
    pictures = [e.picture for e in make_examples(STEPS if in_steps else MATH, HELD_OUT_PER_DOMAIN)]
    pairs = [picture for picture in pictures if isinstance(picture, WrittenSum)]
    unseen = sum(is_reserved_pair(picture.left, picture.right) for picture in pairs)
    return (_STEPS_CARD if in_steps else _CARD).format(
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
_STEPS_CARD = """# Pocket-VL Steps

Pocket-VL ({parameters} parameters, 16 decoder layers, {deepstack}), trained on to answer in
three to five numbered steps, so that what an edit does to a chain of steps can be seen with no download. Its weights start from those of
Pocket-VL, with fresh optimisers and a schedule of their own; tokenizer, processor and size are the same. The weights are stored as float16.
**Findings on it say nothing about large models.**

## Quality

Greedy exact match, every step and the end, on held-out drawings; measured {measured} with {versions} by
`python -m vlm_analysis.pocket card --model pocket-vl-steps`. `missed.json` lists the drawings that it answers wrongly.

| domain | exact match | bar | n |
| --- | --- | --- | --- |
{summary}

| task | domain | exact match | NLL (nats a token) | n |
| --- | --- | --- | --- | --- |
{rows}

An answer in steps: "step 1: 3 circles. step 2: 2 squares. step 3: 4 crosses. step 4: 3 + 2 = 5. therefore 5 + 4 = 9".
`steps-kinds`, `steps-colours` and `steps-quarters` count shapes, `steps-bars` and `steps-ends` add bars, `steps-difference` and
`steps-range` say what has to be added to one bar for another, `steps-carry` adds a written sum digit by digit. Each question
has one form of steps, which the model was shown; it found none of them itself.

## Data

The pictures of Pocket-VL, drawn from seeds, with its general and math questions beside those in steps. Held out by content: training drops
every (image, question) that is in the held-out set, the training monitor or the bundled prompt packs. {unseen} of the {sums} held-out sums
are of number pairs that training never shows in any picture.

## Recipe

Muon on the matrices, AdamW on the rest, warm-up, constant rate, linear decay; several questions about one picture packed
into one sequence. {steps} steps in {hours} hours of computing on {hardware}, beside other work. Recipe: `{recipe}`.
The first 500 steps asked their questions about pictures as they came; since then a picture is drawn for its question, as the held-out ones
are. Accuracy while training: `curve.jsonl`. Train it again with `python -m vlm_analysis.pocket train --model pocket-vl-steps`.
"""

"""Recordings and workspaces of any size that need no model: for tests, screenshots and benchmarks of the pages that only look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from vlm_analysis import MEASURES, Edit, Evaluation, PromptSet, PruneMask, Recording, open_prompts, save_edit
from vlm_analysis.evaluation.evaluation import METRICS
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.recording.measures import empty_rows, triangle
from vlm_analysis.words import TOKEN_GROUPS
from vlm_analysis.workbench.kinds import KINDS
from vlm_analysis.workbench.shelf import keep_evaluation, keep_mask, keep_prompts, keep_recording
from vlm_analysis.workbench.sidecars import ENDING, Item, sidecar_text
from vlm_analysis.workbench.workspace import Workspace

EACH = 3  # prompts of a domain


def made_recording(n_layers: int, domains: Sequence[str], *, model: str = "made") -> Recording:
    """Return a recording of drawn numbers, three prompts a domain; the first and the last layer are protected, layer 2 is locked."""
    rng, n_prompts = np.random.default_rng(n_layers), EACH * len(domains)
    rows = empty_rows(n_prompts, n_layers)
    for name, measure in MEASURES.items():
        rows[name] = rng.integers(4, 9, rows[name].shape) if measure.kind == "<i8" else rng.random(rows[name].shape)
    rows["key"] = [f"key-{number}".encode() for number in range(n_prompts)]
    rows["nonfinite"] = 0
    rows["cosine"] = 1 - 10 ** -rng.uniform(0.7, 3.2, (1, n_layers, 1)) * rng.uniform(0.7, 1.3, rows["cosine"].shape)
    streams = rng.normal(size=(n_prompts, len(TOKEN_GROUPS), n_layers + 1, 5)) + 1
    streams /= np.linalg.norm(streams, axis=-1, keepdims=True)
    rows["span"] = triangle(streams @ streams.swapaxes(-1, -2))
    ends = dict.fromkeys((0, n_layers - 1), "first and last layers stay unless you let them go")
    info = ModelInfo(
        model, f"{n_layers:064d}", n_layers, protected=ends, locked={2: "the cache counts its tokens here"}
    )
    names = tuple(name for name in domains for _ in range(EACH))
    ids = tuple(f"prompt-{number}" for number in range(n_prompts))
    return Recording(info, f"{n_prompts:064d}", ids, names, rows)


def made_evaluation(edit: Edit, model: ModelInfo, prompts: PromptSet) -> Evaluation:
    """Return an evaluation of drawn numbers; the dense model answers all prompts."""
    rng, n = np.random.default_rng(edit.budget), len(prompts)
    numbers: dict[str, Any] = {name: rng.random(n) for name in METRICS}
    if edit.is_dense:
        numbers |= {"token_agreement": np.ones(n), "kl_to_dense": np.zeros(n)}
    numbers["exact_match"] = np.ones(n, bool) if edit.is_dense else numbers["exact_match"] < 0.7
    answers: dict[str, Any] = {"answer": ["an answer"] * n, "answer_source": ["given"] * n, "answer_ids": [[1, 2]] * n}
    frame = pd.DataFrame(
        {"id": [one.id for one in prompts], "domain": [one.domain for one in prompts], **numbers, **answers}
    )
    return Evaluation(edit, model, prompts.fingerprint, frame)


def made_workspace(shelf: Workspace, *, n_masks: int, domains: Sequence[str], n_layers: int = 16) -> Recording:
    """Fill a workspace with prompts and a recording of these domains, evaluations of the dense model and of a mask, and many masks.

    The masks are named "mask 0000" and so on, the newest last, and drop drawn layers; their sidecars are written beside their files
    at once, as saving one looks at all that are there. Returns the recording.
    """
    packs = open_prompts("math") + open_prompts("general")
    prompts = PromptSet(
        replace(packs[(place + 31 * number) % len(packs)], domain=name, id=f"{place}-{number}")
        for place, name in enumerate(domains)
        for number in range(EACH)
    )
    recording = replace(made_recording(n_layers, domains), prompts=prompts.fingerprint)
    info, rng = recording.model, np.random.default_rng(0)
    keep_prompts(shelf, prompts, f"{len(domains)} domains")
    keep_recording(shelf, recording, f"{len(domains)} domains")
    for edit in (Edit(n_layers), PruneMask(n_layers, [5, 9], name="five and nine")):
        keep_evaluation(shelf, made_evaluation(edit, info, prompts), edit.name or "dense")
    folder = keep_mask(shelf, PruneMask(n_layers, [5, 9], name="five and nine", model=info)).path.parent
    for number in range(n_masks):
        dropped = rng.choice(np.arange(3, n_layers - 1), rng.integers(1, n_layers // 2), replace=False).tolist()
        mask = PruneMask(n_layers, dropped, name=f"mask {number:04d}", model=info)
        name = f"20200101-000000-{number:08x}"
        path = save_edit(mask, folder / f"{name}.json")
        about = KINDS["masks"].details(mask)
        item = Item(
            "masks", name, mask.name, "2020-01-01T00:00:00+00:00", path, info.fingerprint, None, info.name, about
        )
        (folder / f"{name}{ENDING}").write_text(sidecar_text(item), encoding="utf-8")
    return recording

"""What saved things hold, as plain values to compare with `saved_0_1/expected.json`: JSON, with None for NaN and no float cut."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlm_analysis import Comparison, Cost, Edit, Evaluation, PromptSet, Recording, Story
from vlm_analysis.export.story import story_sections
from vlm_analysis.workbench.comparisons import Question

SAVED = Path(__file__).parent / "saved_0_1"
EXPECTED: dict[str, Any] = json.loads((SAVED / "expected.json").read_text("utf-8"))


def plain(value: Any) -> Any:
    """Return arrays and tuples as lists, numpy's numbers as Python's, and NaN as None."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    return None if isinstance(value, float) and np.isnan(value) else value


def check(found: Any, expected: Any, tolerance: float = 1e-10, where: str = "") -> None:
    """Assert that plain values are equal, floats to an absolute and relative tolerance."""
    found = plain(found) if not where else found
    if isinstance(expected, float):
        assert isinstance(found, (int, float)), f"{where}: {found}"
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance), where
    elif isinstance(expected, dict):
        assert isinstance(found, dict), f"{where}: {found}"
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            check(found[key], value, tolerance, f"{where}.{key}")
    elif isinstance(expected, list):
        assert isinstance(found, list), f"{where}: {found}"
        assert len(found) == len(expected), where
        for place, (one, value) in enumerate(zip(found, expected, strict=True)):
            check(one, value, tolerance, f"{where}[{place}]")
    else:
        assert type(found) is type(expected), f"{where}: {found}"
        assert found == expected, where


def table(frame: Any) -> dict[str, Any]:
    return {str(column): frame[column].tolist() for column in frame.columns}


def by_domain(evaluation: Evaluation) -> dict[str, Any]:
    return {str(domain): row.to_dict() for domain, row in evaluation.by_domain.iterrows()}


def of_prompts(prompts: PromptSet) -> dict[str, Any]:
    rows = [[p.id, p.domain, p.question, p.answer, p.choices] for p in prompts]
    return {"fingerprint": prompts.fingerprint, "row_keys": prompts.row_keys, "rows": rows}


def of_recording(recording: Recording) -> dict[str, Any]:
    told: dict[str, Any] = {
        "prompts": recording.prompts,
        "domains": recording.domains,
        "ids": recording.prompt_ids,
        "keys": recording.keys,
        "settings": recording.settings,
        "similarity": {domain: recording.layer_similarity(domain) for domain in recording.domain_names},
        "answer_similarity": recording.layer_similarity(None, "answer"),
        "cka": recording.linear_cka(),
        "cross_modal": recording.cross_modal_distance(),
        "span_first_row": recording.span_similarity()[0],
        "has_attention": recording.has("important_cosine"),
    }
    if recording.has("important_cosine"):
        told["visual_attention"] = recording.layer_values("visual_attention")
    if recording.maps is not None:
        one = recording.token_map(0)
        mean = np.nanmean(one.cosine.astype(np.float64), axis=1)
        told["map"] = {"texts": one.texts, "kinds": one.kinds, "grids": one.grids, "mean": mean}
    return told


def of_mask(mask: Edit) -> dict[str, Any]:
    told = {name: getattr(mask, name) for name in ("n_layers", "dropped", "name", "notes", "provenance")}
    model = None if mask.model is None else mask.model.fingerprint
    return {**told, "model": model, "chosen_on": sorted(mask.chosen_on)}


def of_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "dropped": evaluation.mask.dropped,
        "prompts": evaluation.prompts,
        "by_prompt": table(evaluation.by_prompt),
        "by_domain": by_domain(evaluation),
    }


def of_sweep(evaluations: list[Evaluation]) -> list[dict[str, Any]]:
    return [of_evaluation(evaluation) for evaluation in evaluations]


def of_comparison(comparison: Comparison) -> dict[str, Any]:
    ways = comparison.ways
    return {
        "dense": of_evaluation(comparison.dense),
        "dropped": [mask.dropped for mask in comparison.masks],
        "names": [mask.name for mask in comparison.masks],
        "scores": dict(comparison.scores),
        "ways": ways.astype(object).where(ways.notna(), None).to_numpy().tolist(),
        "chosen_on": comparison.chosen_on,
        "n_shared": comparison.n_shared,
        "left_out": dict(comparison.left_out),
        "parameters_left": comparison.parameters_left(),
    }


def of_cost(cost: Cost) -> dict[str, Any]:
    names = ("n_parameters", "n_bytes", "prefill_ms", "tokens_per_s", "device", "new_tokens")
    expected = ("expected_prefill_ms", "expected_tokens_per_s")
    return {"dropped": cost.edit.dropped, **{name: getattr(cost, name) for name in (*names, *expected)}}


def of_story(story: Story) -> dict[str, Any]:
    return {
        "title": story.title,
        "shown": story.shown[0],
        "masks": {name: mask.dropped for name, mask in story.masks.items()},
        "curve": table(story.curve),
        "examples": table(story.examples),
        "sections": [[section.heading, section.text] for section in story_sections(story)],
        "pruned": of_evaluation(story.pruned),
    }


def of_question(question: Question) -> dict[str, Any]:
    later = ("preset", "masks", "recover", "vision")  # which version 0.1 did not ask for
    return {name: value for name, value in asdict(question).items() if value or name not in later}


TOLD = {
    "prompts": of_prompts,
    "recordings": of_recording,
    "masks": of_mask,
    "evaluations": of_evaluation,
    "sweeps": of_sweep,
    "comparisons": of_comparison,
    "costs": of_cost,
    "stories": of_story,
}

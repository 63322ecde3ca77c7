"""The Comparison: many masks on the same prompts, each by the ways that lead to it. Opens without torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.files import edit_content, edit_of
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.evaluation import (
    COLUMNS,
    FORM as EVALUATION,
    GROUP,
    METRICS,
    RIGHT_OR_WRONG,
    Evaluation,
    evaluation_content,
    evaluation_of,
)
from vlm_analysis.evaluation.intervals import group_numbers
from vlm_analysis.guard.schema import fields, listed, row, table, text, whole
from vlm_analysis.saved import FINGERPRINT, MAX_TEXT, Arrays, Form
from vlm_analysis.selection.strategies.many import Way
from vlm_analysis.words import brief, counted, prompts_in

MOST_DRAWS = 10_000
CHOICE_METRICS = ("choice_match", "choice_match_norm")
KNOWN = METRICS + CHOICE_METRICS
WAYS = ("method", "criterion", "strategy", "target", "budget", "draw", "place")
EXAMPLES = ("domain", "question", "dense", "pruned")
RESPONSES = ("place", "id", "question", "dense", "edited")
CHOOSING, LAYER_SHARES = "choosing_", "layer_shares"  # names of arrays
SCHEMA = fields(
    {
        "dense": text(MAX_TEXT),
        "masks": listed(table(), 1),
        "ways": listed(listed(least=len(WAYS), most=len(WAYS)), 1),
        "chosen_on": FINGERPRINT,
        "n_shared": whole(),
        "left_out": table(text()),
    },
    {
        "examples": listed(row(*[text()] * len(EXAMPLES))),
        "responses": listed(row(whole(), *[text()] * (len(RESPONSES) - 1))),
        "choosing": fields({"dense": text(MAX_TEXT), "n_shared": whole()}),
    },
)
FORM = Form(("strata-comparison",), 1, "comparison", "Compare again.", EvaluationError, SCHEMA)
Misfit = tuple[str, str] | None  # what was expected and what is there


@dataclass(frozen=True, eq=False)
class Comparison:
    """Scores of many masks on one prompt set.

    Attributes:
        dense: the dense evaluation, with the prompts' domains and answers.
        masks: the different masks.
        scores: by metric, (n_masks, n_prompts) float64, in the order of the masks and of the dense evaluation's prompts: `METRICS`, and
            where prompts have choices `CHOICE_METRICS` (NaN for prompts without).
        ways: columns `WAYS`, one row for each way to a mask; `place` is the mask's.
        chosen_on: fingerprint of the prompts that layers were scored on.
        n_shared: how many of the evaluated prompts are among those, or share a picture with one of them.
        left_out: by method, why masks of it are missing.
        examples: columns `EXAMPLES`, text: some prompts that the dense model answers exactly and one of the masks does not, or in whose
            answers they differ most, with both answers; empty where none was asked for.
        responses: columns `RESPONSES`: what the dense model and the mask at `place` wrote to some prompts; empty where none was asked for.
        choosing: the same masks on the prompts that layers were scored on; None where they were not evaluated there.
        layer_shares: (n_layers,) float64, each layer's share of the time of a dense forward pass; (0,) where no time was measured.
    """

    dense: Evaluation
    masks: tuple[Edit, ...]
    scores: Mapping[str, np.ndarray]
    ways: pd.DataFrame
    chosen_on: str = ""
    n_shared: int = 0
    left_out: Mapping[str, str] = field(default_factory=dict)
    examples: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(EXAMPLES)))
    responses: pd.DataFrame = field(default_factory=lambda: _responses([]), kw_only=True)
    choosing: Comparison | None = field(default=None, kw_only=True)
    layer_shares: np.ndarray = field(default_factory=lambda: np.zeros(0), kw_only=True)

    def __repr__(self) -> str:
        made = f"{counted(len(self.masks), 'mask')} by {counted(self.ways['method'].nunique(), 'method')}"
        return brief(self, self.dense.model.name, made, prompts_in(self.dense.by_prompt["domain"]))

    def __post_init__(self) -> None:
        for check in (_misfit_masks, _misfit_scores, _misfit_ways, _misfit_rest, _misfit_answer):
            misfit = check(self)
            if misfit is not None:
                raise EvaluationError(
                    f"The comparison does not fit together: expected {misfit[0]}, got {misfit[1]}. Compare again."
                )

    @property
    def domains(self) -> tuple[str, ...]:
        """Return the domains in order of first appearance."""
        return tuple(dict.fromkeys(self.dense.by_prompt["domain"]))

    @property
    def groups(self) -> np.ndarray:
        """Return the (n_prompts,) number of each prompt's group."""
        return group_numbers(self.dense.shared_groups, len(self.dense.by_prompt))

    def base(self, metric: str) -> np.ndarray:
        """Return the (n_prompts,) float64 scores of the dense model; NaN for a prompt that was not asked."""
        return self.dense.by_prompt[metric].to_numpy(np.float64)

    def rows(self, domain: str | None, metric: str = "exact_match") -> np.ndarray:
        """Return which prompts of a domain (None: of all) the metric was asked of, (n_prompts,) bool."""
        names, has_metric = self.dense.by_prompt["domain"].to_numpy(), ~np.isnan(self.base(metric))
        return has_metric if domain is None else has_metric & (names == domain)

    def only(self, domains: Collection[str]) -> Comparison:
        """Return the same masks on the prompts of these domains; `n_shared` is bounded, as it is unknown which prompts are shared."""
        if set(self.domains) <= set(domains):
            return self
        in_domains = self.dense.by_prompt["domain"].isin(domains).to_numpy()
        dense = replace(self.dense, by_prompt=self.dense.by_prompt[in_domains].reset_index(drop=True))
        scores = {name: values[:, in_domains] for name, values in self.scores.items()}
        shown = {
            "responses": self.responses[self.responses["id"].isin(dense.by_prompt["id"])].reset_index(drop=True),
            "choosing": self.choosing and self.choosing.only(domains),
        }
        return replace(self, dense=dense, scores=scores, n_shared=min(self.n_shared, int(in_domains.sum())), **shown)

    def evaluation(self, place: int) -> Evaluation:
        """Return the Evaluation of one mask, as evaluating it alone gives it, but for responses and choices."""
        columns = [column for column in (*COLUMNS, GROUP) if column in self.dense.by_prompt]
        frame = self.dense.by_prompt[columns].copy()
        for name in METRICS:
            values = self.scores[name][place]
            frame[name] = values.astype(bool) if name == "exact_match" else values
        dense = self.dense
        return Evaluation(self.masks[place], dense.model, dense.prompts, frame, set_aside=dense.set_aside)

    def parameters_left(self) -> np.ndarray:
        """Return the (n_masks,) share of the model's parameters that each mask leaves; of its layers where they were not counted."""
        model = self.dense.model
        layers, total = np.asarray(model.layer_parameters, np.float64), float(model.n_parameters)
        if len(layers) != model.n_layers or total <= 0:
            return np.array([len(mask.steps.layers) / model.n_layers for mask in self.masks])
        return np.array([1 - mask.saved_parameters(model) / total for mask in self.masks])


def _misfit_masks(comparison: Comparison) -> Misfit:
    dense, masks = comparison.dense, comparison.masks
    if not dense.is_dense:
        return "a dense evaluation to compare with", f"one that {dense.edit.words()}"
    if not masks:
        return "masks", "none"
    wrong = {mask.n_layers for mask in (dense.edit, *masks)} - {dense.model.n_layers}
    if wrong:
        return f"masks of {dense.model.n_layers!r} layers", f"one of {min(wrong)}"
    if len(set(masks)) != len(masks):
        return "different masks", f"{len(masks) - len(set(masks))} more than once"
    return None


def _misfit_scores(comparison: Comparison) -> Misfit:
    shape = (len(comparison.masks), len(comparison.dense.by_prompt))
    lacking = [name for name in METRICS if name not in comparison.scores]
    if lacking:
        return f"scores by {', '.join(METRICS)}", f"none by {', '.join(lacking)}"
    for name, values in comparison.scores.items():
        if name not in KNOWN or (name in CHOICE_METRICS and name not in comparison.dense.by_prompt):
            return "scores that the dense evaluation has too", f"some by {name!r}"
        if values.dtype != np.float64 or values.shape != shape:
            return f"float64 scores of shape {shape} by {name}", f"{values.dtype} of shape {values.shape}"
        if (
            name in RIGHT_OR_WRONG
            and not (np.isin(values, (0, 1)) | (np.isnan(values) & (name != "exact_match"))).all()
        ):
            return f"0 or 1 for each {name}", "other numbers"
    return None


def _misfit_ways(comparison: Comparison) -> Misfit:
    ways, n_layers = comparison.ways, comparison.dense.model.n_layers
    if list(ways.columns) != list(WAYS) or ways.empty:
        return f"ways with the columns {', '.join(WAYS)}", f"{len(ways)} with {', '.join(map(str, ways.columns))}"
    most = {"budget": n_layers, "draw": MOST_DRAWS, "place": len(comparison.masks) - 1}
    for name, bound in most.items():
        if not (pd.api.types.is_integer_dtype(ways[name]) and ways[name].between(0, bound).all()):
            return f"ways with a {name} in 0..{bound}", "others"
    for name in ("method", "criterion", "strategy", "target"):
        optional = name in ("criterion", "target")
        if not all(isinstance(value, str) or (optional and _is_none(value)) for value in ways[name]):
            return f"ways with text as their {name}", "others"
    return None


def _misfit_rest(comparison: Comparison) -> Misfit:
    n_prompts = len(comparison.dense.by_prompt)
    if not is_whole(comparison.n_shared) or not 0 <= comparison.n_shared <= n_prompts:
        return f"a number of shared prompts in 0..{n_prompts}", repr(comparison.n_shared)
    if not isinstance(comparison.chosen_on, str):
        return "the fingerprint of the prompts that masks were chosen on", repr(comparison.chosen_on)[:200]
    left_out = comparison.left_out
    if not (isinstance(left_out, Mapping) and all(isinstance(text, str) for pair in left_out.items() for text in pair)):
        return "the methods left out with a reason each", repr(left_out)[:200]
    examples = comparison.examples
    if list(examples.columns) != list(EXAMPLES) or not all(isinstance(one, str) for one in examples.to_numpy().flat):
        return f"examples of text with the columns {', '.join(EXAMPLES)}", "others"
    return None


def _misfit_answer(comparison: Comparison) -> Misfit:
    """Check what only an Answer needs."""
    responses, choosing, shares = comparison.responses, comparison.choosing, comparison.layer_shares
    if list(responses.columns) != list(RESPONSES) or not pd.api.types.is_integer_dtype(responses["place"]):
        return f"responses with the columns {', '.join(RESPONSES)}", "others"
    if not responses["place"].between(0, len(comparison.masks) - 1).all():
        return f"responses of masks in 0..{len(comparison.masks) - 1}", "others"
    if not set(responses["id"]) <= set(comparison.dense.by_prompt["id"]):
        return "responses to prompts that were evaluated", "others"
    if choosing is not None and (choosing.masks != comparison.masks or choosing.choosing is not None):
        return "the same masks on the choosing prompts", "others"
    n_layers = comparison.dense.model.n_layers
    if shares.shape not in ((0,), (n_layers,)) or not (shares >= 0).all() or not shares.sum() < 1:
        return f"shares of the time of {n_layers} layers that sum to less than 1", "others"
    return None


def _responses(rows: list[Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(RESPONSES)).astype({"place": int})


def _is_none(value: object) -> bool:
    return value is None or value != value  # pandas makes NaN of None in a column of text


def ways_frame(ways: Sequence[Way], masks: Sequence[Edit]) -> pd.DataFrame:
    """Return the `ways` of a Comparison of these masks."""
    index_of = {mask: number for number, mask in enumerate(masks)}
    rows = [(w.method, w.criterion, w.strategy, w.target, w.budget, w.draw, index_of[w.mask]) for w in ways]
    return pd.DataFrame(rows, columns=list(WAYS)).astype({"criterion": object, "target": object})


def save_comparison(comparison: Comparison, path: Path) -> Path:
    """Write one npz file without pickle; it appears whole or not at all. Returns the path."""
    payload: dict[str, Any] = {
        "dense": EVALUATION.text(evaluation_content(comparison.dense)),
        "masks": [edit_content(mask) for mask in comparison.masks],
        "ways": comparison.ways.astype(object).where(comparison.ways.notna(), None).to_numpy().tolist(),
        "chosen_on": comparison.chosen_on,
        "n_shared": comparison.n_shared,
        "left_out": dict(comparison.left_out),
        "examples": comparison.examples.to_numpy().tolist(),
        "responses": comparison.responses.to_numpy().tolist(),
    }
    arrays, choosing = dict(comparison.scores), comparison.choosing
    if len(comparison.layer_shares):
        arrays[LAYER_SHARES] = comparison.layer_shares
    if choosing is not None:
        dense = EVALUATION.text(evaluation_content(choosing.dense))
        payload["choosing"] = {"dense": dense, "n_shared": choosing.n_shared}
        arrays |= {f"{CHOOSING}{name}": values for name, values in choosing.scores.items()}
    return FORM.save_arrays(path, payload, {name: np.asarray(values, np.float64) for name, values in arrays.items()})


def open_comparison(path: Path) -> Comparison:
    """Open a comparison written by `save_comparison`; needs neither torch nor the model.

    Raises:
        EvaluationError: the file is missing, cut short, too large, of another kind or version, or does not fit together.
    """
    return FORM.open_arrays(path, _comparison_of)


def _comparison_of(content: dict[str, Any], arrays: Arrays) -> Comparison:
    names = arrays.names - {"meta", LAYER_SHARES}
    known = set(KNOWN) | {f"{CHOOSING}{name}" for name in KNOWN if "choosing" in content}
    if arrays.more or not names <= known:
        raise ValueError(f"expected arrays among meta, {', '.join(KNOWN)}, got {', '.join(sorted(names)[:9])}")
    masks = tuple(edit_of(mask) for mask in content["masks"])
    ways = pd.DataFrame(content["ways"], columns=list(WAYS)).astype({"criterion": object, "target": object})

    def scored(part: dict[str, Any], prefix: str = "", **more: Any) -> Comparison:
        dense = EVALUATION.read(part["dense"], "the dense evaluation", evaluation_of)
        shape = (len(masks), len(dense.by_prompt))
        scores = {name: arrays.get(prefix + name, np.float64, shape) for name in KNOWN if prefix + name in names}
        return Comparison(
            dense, masks, scores, ways, content["chosen_on"], part["n_shared"], content["left_out"], **more
        )

    more: dict[str, Any] = {
        "examples": pd.DataFrame(content.get("examples", []), columns=list(EXAMPLES)),
        "responses": _responses(content.get("responses", [])),
        "choosing": scored(content["choosing"], CHOOSING) if "choosing" in content else None,
    }
    if LAYER_SHARES in arrays.names:
        more["layer_shares"] = arrays.get(LAYER_SHARES, np.float64, (masks[0].n_layers,))
    return scored(content, **more)

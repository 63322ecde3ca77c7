"""The story of one comparison: which layers look redundant, what each method would drop, and what that breaks.

A Story is what is drawn of a Comparison and the recording its masks were chosen on: on the Overview page, and as one HTML file. Every
sentence is computed from the numbers it stands beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.files import edit_for
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.evaluation import (
    FORM as EVALUATION,
    IN_NATS,
    METRICS,
    Evaluation,
    check_same_work,
    evaluation_of,
    on_both,
)
from vlm_analysis.evaluation.telling import KEPT, accepted_line, telling_line, title_of, unanswered_line
from vlm_analysis.export.report import Section
from vlm_analysis.guard.schema import fields, listed, maybe, number, row, table, text, whole
from vlm_analysis.model_info import MOST_LAYERS
from vlm_analysis.recording.recording import Recording
from vlm_analysis.recording.tasks import task_similarity, tasks_of
from vlm_analysis.saved import MAX_TEXT, Form
from vlm_analysis.selection.compared.answer import LOST, Answer, answer_of
from vlm_analysis.selection.compared.answerwords import choice_line, headline, speed_line, tolerance_line
from vlm_analysis.selection.compared.comparison import EXAMPLES, Comparison, ways_frame
from vlm_analysis.selection.compared.findings import CURVE, retention_curves, telling
from vlm_analysis.selection.strategies.many import RANDOM, Way
from vlm_analysis.words import brief, counted, set_aside_lines

_SHARE = maybe(number(0))
_CURVE_ROW = row(text(), text(), whole(0, MOST_LAYERS), _SHARE, _SHARE, _SHARE)
SCHEMA = fields(  # of version 0.1
    {
        "masks": table(table(), text(1000, 1), 1),
        "curve": fields({"data": listed(_CURVE_ROW, 1)}),
        "examples": fields({"data": listed(row(*[text()] * len(EXAMPLES)))}),
        "dense": text(MAX_TEXT),
        "pruned": text(MAX_TEXT),
    }
)
FORM = Form(("strata-story",), 1, "demo result", "Run the demo again.", EvaluationError, SCHEMA)
SHOWN_RATIO = 0.2


@dataclass(frozen=True, eq=False)
class Story:
    """Everything the pictures need.

    Attributes:
        recording: the layer similarities.
        masks: each method's mask at the shown budget, by the method's name on screen.
        curve: of the score `metric`, as `retention_curves` gives it.
        dense, pruned: the evaluations of the dense model and of the first of `masks`.
        examples: those of the comparison, of the first of `masks`.
        metric: the score that the story tells (see `evaluation.telling`); exact match in stories of version 0.1.
        answer: what the comparison answers, where masks were chosen on other prompts than they are reported on; else None.

    Raises:
        EvaluationError: the curve lacks a method, or the random masks, on a domain of the recording at the shown budget.
    """

    recording: Recording
    masks: Mapping[str, Edit]
    curve: pd.DataFrame
    dense: Evaluation
    pruned: Evaluation
    examples: pd.DataFrame
    metric: str = "exact_match"
    answer: Answer | None = None

    def __repr__(self) -> str:
        return brief(self, self.recording.model.name, counted(len(self.masks), "mask"), repr(self.pruned.edit))

    @property
    def line(self) -> str:
        """Return which score is shown in place of exact match, and why; "" for exact match."""
        return telling_line(self.metric)

    def __post_init__(self) -> None:
        method, mask = self.shown
        here = self.curve[self.curve["budget"] == mask.budget]
        found = list(zip(here["method"], here["domain"], strict=True))
        needed = {(name, domain) for name in (method, RANDOM) for domain in self.recording.domain_names}
        if not needed <= set(found) or len(set(found)) < len(found):
            raise EvaluationError(
                f"The story does not fit together: expected the retention of {method!r} and of random masks without "
                f"{counted(mask.budget, 'layer')}, "
                f"once on each domain, got {len(found)} values. {FORM.advice}"
            )

    @property
    def title(self) -> str:
        return f"Which layers can {self.recording.model.name} do without?"

    @property
    def shown(self) -> tuple[str, Edit]:
        """Return the method whose mask the story prunes with, and that mask."""
        return next(iter(self.masks.items()))


def story_of(comparison: Comparison, recording: Recording) -> Story:
    """Return the story of a comparison and the recording that its masks were chosen on.

    Where masks were chosen on prompts of their own, the story is that of the answer at the recommended budget. Else masks are shown at a
    budget of a fifth of the layers, or the largest below it at which every method has a mask.

    Raises:
        EvaluationError: there is no such budget.
    """
    if comparison.choosing is not None:
        return _story_of_answer(comparison, recording)
    ways, most = comparison.ways, max(1, int(SHOWN_RATIO * recording.n_layers))
    methods = ways.groupby("budget")["method"].nunique()
    whole = [int(budget) for budget in methods.index[methods == ways["method"].nunique()] if budget <= most]
    if not whole:
        reasons = "; ".join(dict.fromkeys(comparison.left_out.values()))
        raise EvaluationError(
            f"The comparison has no story: expected a mask of every method at one budget of 1 to {most} layers, got none. "
            f"Compare other methods. {reasons}".strip()
        )
    shown = ways[(ways["budget"] == whole[-1]) & (ways["draw"] == 0)]
    masks = {
        str(method): comparison.masks[index] for method, index in zip(shown["method"], shown["place"], strict=True)
    }
    pruned = comparison.evaluation(int(shown["place"].iloc[0]))
    metric = telling(comparison)
    curve = retention_curves(comparison, metric)
    return Story(recording, masks, curve, comparison.dense, pruned, comparison.examples, metric)


def _story_of_answer(comparison: Comparison, recording: Recording) -> Story:
    answer, ways = answer_of(comparison), comparison.ways
    here = ways[(ways["budget"] == answer.budget) & (ways["draw"] == 0)]
    first = {answer.method: answer.edit}
    others = {str(name): comparison.masks[place] for name, place in zip(here["method"], here["place"], strict=True)}
    place = comparison.masks.index(answer.edit)
    lost = [
        (one.domain, one.question, *("".join(piece.text for piece in side) for side in (one.dense, one.edited)))
        for one in answer.examples
        if one.outcome == LOST
    ]
    return Story(
        recording,
        first | others,
        retention_curves(comparison, answer.metric),
        comparison.dense,
        comparison.evaluation(place),
        pd.DataFrame(lost, columns=list(EXAMPLES)),
        answer.metric,
        answer,
    )


def answer_in(story: Story) -> Answer:
    """Return the answer of a story; of one without halves, as those of version 0.1, that of its one evaluated mask."""
    if story.answer is not None:
        return story.answer
    pruned, dense = on_both(story.pruned, story.dense)
    method, mask = story.shown
    way = Way(method, None, "first-k", None, mask.budget, 0, mask)
    scores = {name: pruned.by_prompt[name].to_numpy(np.float64)[None] for name in METRICS}
    return answer_of(
        Comparison(dense, (mask,), scores, ways_frame([way], [mask]), story.recording.prompts, len(dense.by_prompt))
    )


def story_sections(story: Story) -> list[Section]:
    """Return the story as sections: a heading, one sentence, and the picture it is about."""
    sections = [_headline(story.answer)] if story.answer is not None else []
    sections.append(_similarity(story))
    if len(story.recording.domain_names) == 2:
        sections.append(_difference(story))
    sections += [_strips(story), _retention(story), _damage(story), _broken(story)]
    lines = set_aside_lines(story.dense.set_aside | story.recording.set_aside, len(story.dense.by_prompt))
    sections += task_sections(story.recording)
    return sections + ([Section("What could not be asked", "\n\n".join(lines))] if lines else [])


def domain_rows(recording: Recording, token_group: str = "all") -> np.ndarray:
    """Return the (n_domains, n_layers) layer similarities, one row a domain in the recording's order."""
    return np.stack([recording.layer_similarity(domain, token_group) for domain in recording.domain_names])


def task_sections(recording: Recording) -> list[Section]:
    """Return the similarity of layers on each task as a section with its numbers; none where the prompts have no tasks."""
    from vlm_analysis.figures.heatmaps import task_heatmap

    tasks = tasks_of(recording)
    if not tasks:
        return []
    values = task_similarity(recording)
    names = pd.DataFrame([(*name, len(indices)) for name, indices in tasks.items()], columns=["domain", "task", "n"])
    numbers = pd.DataFrame(values, columns=[f"layer {layer}" for layer in range(recording.n_layers)])
    text = "A row for each task, the level below the domain; few prompts make a row of noise."
    figure = task_heatmap(values, list(tasks), locks=recording.model.locks)
    return [Section("Similarity by task", text, figure, pd.concat([names, numbers], axis=1))]


def outcome_frame(pruned: Evaluation, dense: Evaluation) -> pd.DataFrame:
    """Return columns domain, metric, dense, pruned for every domain and metric."""
    pruned, dense = on_both(pruned, dense)
    one, other = dense.by_domain, pruned.by_domain
    rows = [
        {"domain": domain, "metric": metric, "dense": one.loc[domain, metric], "pruned": other.loc[domain, metric]}
        for domain in one.index
        for metric in METRICS
    ]
    return pd.DataFrame(rows)


def _headline(answer: Answer) -> Section:
    return Section(headline(answer), f"{choice_line(answer)} {tolerance_line(answer)} {speed_line(answer)}")


def _similarity(story: Story) -> Section:
    from vlm_analysis.figures.heatmaps import similarity_heatmap

    recording = story.recording
    rows = domain_rows(recording)
    mean = rows.mean(axis=0)
    order = np.argsort(-mean, kind="stable")
    text = (
        f"The brighter a cell, the less its layer changes what it is given (cosine of layer input and output, mean over "
        f"{counted(recording.n_prompts, 'prompt')}): layers {_listed(order[:3])} change it least, "
        f"layers {_listed(order[::-1][:2])} change it most. P marks layers that should stay: the first, the last, and those "
        f"after which the model adds vision features."
    )
    figure = similarity_heatmap(rows, recording.domain_names, locks=recording.model.locks)
    return Section("How much each decoder layer changes its input", text, figure)


def _difference(story: Story) -> Section:
    from vlm_analysis.figures.heatmaps import difference_heatmap

    one, other = story.recording.domain_names
    gap = story.recording.layer_similarity(one) - story.recording.layer_similarity(other)
    needs_one, needs_other = int(np.nanargmin(gap)), int(np.nanargmax(gap))
    text = (
        f"Where the two domains part: layer {needs_one} works harder on {one} prompts (cosine lower by {-gap[needs_one]:.3f}), "
        f"layer {needs_other} on {other} prompts (lower by {gap[needs_other]:.3f})."
    )
    return Section(
        f"Similarity on {one} minus similarity on {other}", text, difference_heatmap(gap[None], [f"{one} − {other}"])
    )


def _strips(story: Story) -> Section:
    from vlm_analysis.figures.heatmaps import edit_strips

    common = set.intersection(*(set(mask.dropped) for name, mask in story.masks.items() if name != RANDOM))
    agreement = f"all agree on {_layers(sorted(common))}" if common else "no layer is chosen by all of them"
    budget = story.shown[1].budget
    text = (
        f"What each ranking would drop at a budget of {counted(budget, 'layer')}; random aside, {agreement}. A "
        f"domain's ranking drops first "
        f"what changes that domain's prompts least; block influence, what changes all prompts least."
    )
    figure = edit_strips(list(story.masks.items()), story.recording.n_layers, locks=story.recording.model.locks)
    return Section("Candidate masks", text, figure)


def _retention(story: Story) -> Section:
    from vlm_analysis.figures.curves import retention_curve

    method, mask = story.shown
    here = story.curve[story.curve["budget"] == mask.budget].set_index(["method", "domain"])["value"]
    kept = " and ".join(
        f"{_share(here[method, domain])} of {KEPT[story.metric].format(domain)} (random: {_share(here[RANDOM, domain])})"
        for domain in story.recording.domain_names
    )
    best = "; ".join(f"{domain}: {_best(here, domain)}" for domain in story.recording.domain_names)
    chosen = "Layers were chosen and answers counted on the same prompts, which flatters the rankings."
    chosen = chosen if story.answer is None else choice_line(story.answer)
    above = "above 1 the pruned model answers more prompts than the dense one. " if not story.line else ""
    text = (
        f"{story.line}{' ' * bool(story.line)}Without {mask.budget} of {mask.n_layers} layers, chosen by “{method}”, the model keeps "
        f"{kept}. Best ranking at this budget: {best}. Bars are 90 % intervals over prompts, the grey band is the range of the random "
        f"draws; {above}{chosen} "
        f"{accepted_line(story.dense)} {unanswered_line(story.dense)}"
    ).strip()
    return Section("Retention over the number of dropped layers", text, retention_curve(story.curve, y_max=1.15))


def _best(here: pd.Series, domain: str) -> str:
    """Return the method, or methods, that keep most of a domain."""
    values = here.xs(domain, level="domain").drop(RANDOM)
    if values.isna().all():
        return "not defined"
    return _joined([str(name) for name in values.index[values == values.max()]])


def _damage(story: Story) -> Section:
    from vlm_analysis.figures.outcomes import damage_bars

    frame, metric = outcome_frame(story.pruned, story.dense), story.metric
    rows = frame[frame["metric"] == metric]
    lost = (rows["dense"] - rows["pruned"]) * (-1 if metric in IN_NATS else 1)
    worst, form = rows.loc[lost.sort_values().index[-1]], "{:.2f} nats" if metric in IN_NATS else "{:.0%}"
    text = (
        f"Without {_layers(story.pruned.edit.dropped)}, {worst['domain']} suffers most: {title_of(metric)} goes from "
        f"{form.format(worst['dense'])} to {form.format(worst['pruned'])}."
    )
    return Section("What it costs each domain", text, damage_bars(frame, metric=metric))


def _broken(story: Story) -> Section:
    dense, pruned = story.dense.by_prompt, story.pruned.by_prompt
    dense_right = int(dense["exact_match"].sum())
    n_broken = int((dense["exact_match"] & ~pruned["exact_match"]).sum())
    known = counted(dense_right, "prompt")
    text = f"Of the {known} the dense model answers exactly, {n_broken} are no longer answered exactly."
    names = {"dense": "dense model (the reference answer)", "pruned": "pruned model"}
    if story.line:
        n_broken, names["dense"] = int((pruned["token_agreement"] < 1).sum()), "dense model"
        text = f"In {n_broken} of {counted(len(pruned), 'answer')} the pruned model chooses another token than the dense one somewhere."
    if story.examples.empty:
        return Section("What broke", text)
    part = "They are:" if len(story.examples) == n_broken else f"{len(story.examples)} of them:"
    return Section("What broke", f"{text} {part}", table=story.examples.rename(columns=names))


def _share(value: float) -> str:
    return "an unknown share (the dense model gives none exactly)" if np.isnan(value) else f"{value:.0%}"


def _layers(layers: Any) -> str:
    return f"layer{'' if len(layers) == 1 else 's'} {_listed(layers)}"


def _listed(layers: Any) -> str:
    return _joined([str(int(layer)) for layer in layers]) or "none"


def _joined(words: list[str]) -> str:
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


# --- files of version 0.1 -----------------------------------------------------------------------------------------


def open_story(path: Path, recording: Recording) -> Story:
    """Open a story that version 0.1 saved, which kept its curve and masks but not the scores behind them.

    Raises:
        EvaluationError: the file is missing, cut short, or of another kind or version.
    """

    def story_from(content: dict[str, Any]) -> Story:
        story = Story(
            recording=recording,
            masks={name: edit_for(mask, recording.model) for name, mask in content["masks"].items()},
            curve=_table(content["curve"], CURVE).astype({"value": float, "low": float, "high": float}),
            examples=_table(content["examples"], EXAMPLES),
            dense=EVALUATION.read(content["dense"], "the dense evaluation", evaluation_of),
            pruned=EVALUATION.read(content["pruned"], "the pruned evaluation", evaluation_of),
        )
        _check_parts(story)
        return story

    return FORM.open(path, story_from)


def _check_parts(story: Story) -> None:
    """Raise where the parts of a story are not of one model, one prompt set and one mask."""
    check_same_work(story.pruned, story.dense)
    if story.dense.model.fingerprint != story.recording.model.fingerprint:
        raise ValueError("expected a recording of the evaluated model, got one of another")
    if not story.dense.is_dense or story.pruned.edit != story.shown[1]:
        raise ValueError("expected evaluations of the dense model and of the first mask, got others")


def _table(content: dict[str, Any], columns: tuple[str, ...]) -> pd.DataFrame:
    """Return a saved table with its texts as they were: pandas' own reader would make "007" a number."""
    return pd.DataFrame(content["data"], columns=list(columns))

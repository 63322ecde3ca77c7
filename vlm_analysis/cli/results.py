"""Turn values of every kind into a Result: text, rows and figures. Opens without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from vlm_analysis.cli.maskfiles import mask_forms
from vlm_analysis.cli.output import Result, rows_of
from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.files import edit_to_json
from vlm_analysis.edits.learnt import ENDING, write_tensors
from vlm_analysis.edits.skipping import FULL, vision_row
from vlm_analysis.evaluation.evaluation import Evaluation, on_both, retention, retention_interval, save_evaluation
from vlm_analysis.evaluation.stability import stability
from vlm_analysis.evaluation.telling import (
    above_line,
    accepted_line,
    telling_line,
    telling_score_of,
    told_lines,
    unanswered_line,
)
from vlm_analysis.export.report import Section
from vlm_analysis.recording.recording import Recording, save_recording
from vlm_analysis.recording.tables import measure_table
from vlm_analysis.recording.tasks import task_table
from vlm_analysis.recording.towertable import has_tower, tower_similarity
from vlm_analysis.selection.compared.comparison import Comparison, save_comparison
from vlm_analysis.selection.compared.findings import mask_table, telling
from vlm_analysis.selection.compared.skipping import taken_line
from vlm_analysis.selection.compared.verdicts import family_of, family_words, regime_words, regimes
from vlm_analysis.selection.criteria.criteria import CRITERIA
from vlm_analysis.selection.criteria.scores import LayerScores
from vlm_analysis.words import counted, in_groups, sentence, set_aside_lines
from vlm_analysis.workbench.responses import Responses, parting
from vlm_analysis.workbench.workspace import Item

if TYPE_CHECKING:
    import numpy as np

    from vlm_analysis.export.story import Story
    from vlm_analysis.prompts.prompts import PromptSet

BEST = 10


def item_data(item: Item | None) -> dict[str, Any]:
    """Return the keys of a JSON document that identify the saved item; none for a file."""
    return {} if item is None else {"kind": item.kind, "id": item.id, "name": item.name}


def kept_line(item: Item | None) -> str:
    """Return a line with the name and id of the saved item."""
    return "" if item is None else f"\nKept in {item.kind}: {item.name} ({item.id})"


def aside(set_aside: Mapping[str, str], n_used: int | None = None) -> str:
    """Return lines with the prompts that were set aside and the reasons, "" where none was."""
    return "".join(f"\n{line}" for line in set_aside_lines(set_aside, n_used))


def grid(table: pd.DataFrame, digits: int = 3) -> str:
    """Return a table as text; unknown values are dashes."""
    return str(table.to_string(index=False, na_rep="–", float_format=lambda value: f"{value:.{digits}f}"))


def edit_words(edit: Edit) -> str:
    """Return what an edit does, in the words of the pages."""
    if edit.is_dense:
        return "the dense model"
    return f"without layers {', '.join(map(str, edit.dropped))}" if edit.is_mask else f"edited: {edit.words()}"


def of_recording(recording: Recording, item: Item | None) -> Result:
    """Return the similarity of each layer by domain; the table has every measure."""
    names = recording.domain_names
    similar = {name: recording.layer_similarity(name, "all") for name in names}
    about = f"{recording.model.name} on {counted(recording.n_prompts, 'prompt')}: similarity of each layer, all prompt tokens"
    about = "\n".join([*recording.model.disagreements, about])
    of_encoder = {name: tower_similarity(recording, name) for name in names} if has_tower(recording) else {}
    encoder = f"\nLayers of the vision encoder, over its own tokens:\n{_by_layer(of_encoder)}" if of_encoder else ""
    data = {
        **item_data(item),
        "model": asdict(recording.model),
        "prompts": recording.prompts,
        "n_prompts": recording.n_prompts,
        "set_aside": recording.set_aside,
        "similarity": similar,
        **({"tower_similarity": of_encoder} if of_encoder else {}),
        "similarity_by_task": rows_of(task_table(recording)) if recording.tasks else [],
    }

    def sections() -> list[Section]:
        import numpy as np

        from vlm_analysis.export.story import task_sections
        from vlm_analysis.figures.drawn import similarity_svg

        picture = similarity_svg(np.stack(list(similar.values())), names, about)
        return [Section("Similarity", about, picture=picture), *task_sections(recording)]

    forms = {".npz": lambda path: save_recording(recording, path)}
    words = f"{about}\n{_by_layer(similar)}{encoder}{aside(recording.set_aside, recording.n_prompts)}{kept_line(item)}"
    return Result("Recording", words, data, measure_table(recording), sections, forms)


def _by_layer(similar: Mapping[str, np.ndarray]) -> str:
    """Return (n_layers,) similarities by domain as text, a line a layer."""
    return grid(pd.DataFrame(similar).rename_axis("layer").reset_index(), 4)


def _target(scores: LayerScores) -> str:
    """Return the domain that scores are for, as a criterion's name is followed by it; "" where they are for all."""
    target = scores.options.get("target")
    return "" if target is None else f" ({target})"


def _column(scores: LayerScores) -> str:
    return f"{scores.criterion}{_target(scores)}"


def of_scores(recording: Recording, scores: Sequence[LayerScores], refused: dict[str, str]) -> Result:
    """Return the scores of criteria: one column for each in the text, one row for each criterion and layer in the table."""
    shown = pd.DataFrame({"layer": range(recording.n_layers), **{_column(one): one.values for one in scores}})
    frames = [
        pd.DataFrame(
            {
                "criterion": one.criterion,
                "layer": range(recording.n_layers),
                "score": one.values,
                "spread": one.spread,
                "goes": [one.order.index(layer) + 1 if layer in one.order else None for layer in shown["layer"]],
            }
        )
        for one in scores
    ]
    orders = [
        f"{CRITERIA[one.criterion].title}{_target(one)}: the {one.drop} go first: {', '.join(map(str, one.order))}"
        for one in scores
    ]
    reasons = [f"{CRITERIA[name].title} cannot be used here: {reason}" for name, reason in refused.items()]
    data = {
        "model": recording.model.fingerprint,
        "prompts": recording.prompts,
        "criteria": [asdict(one) | {"order": one.order} for one in scores],
        "refused": refused,
        "set_aside": recording.set_aside,
    }
    return Result(
        "Scores of the layers",
        "\n".join([grid(shown, 4), "", *orders, *reasons]) + aside(recording.set_aside, recording.n_prompts),
        data,
        pd.concat(frames, ignore_index=True),
    )


def of_mask(edit: Edit, item: Item | None, config: Path | None = None) -> Result:
    """Return what an edit does, and one row per layer; `config` is the dense model's config.json, for Puzzletron."""
    gone = set(edit.gone)
    table = pd.DataFrame(
        {"layer": range(edit.n_layers), "kept": [int(layer not in gone) for layer in range(edit.n_layers)]}
    )
    if set(row := vision_row(edit)) != {FULL}:
        table["vision"] = row
    if edit.is_dense:
        words = "the dense model: no layer is dropped"
    elif edit.is_mask:
        words = f"drops {edit.budget} of {edit.n_layers} layers: {', '.join(map(str, edit.dropped))}"
    else:
        words = edit.words()

    def sections() -> list[Section]:
        from vlm_analysis.figures.drawn import strip_svg

        locks = None if edit.model is None else edit.model.locks
        return [Section("Layers", sentence(words), picture=strip_svg(edit, sentence(words), locks=locks))]

    forms = mask_forms(edit, config)
    data = {**item_data(item), "key": edit.key, "edit": json.loads(edit_to_json(edit))}
    noted = edit.provenance.get("set_aside")  # of a search; a file may say anything
    lines = aside(noted if isinstance(noted, dict) else {})
    text = f"{edit.name or 'mask'}: {words}{lines}{kept_line(item)}"

    def beside(path: Path) -> None:
        if path.name.lower().endswith(".json"):
            write_tensors(edit.changes, path.with_suffix(ENDING))

    return Result(edit.name or "Mask", text, data, table, sections, forms, beside)


def score_table(evaluations: Sequence[Evaluation], dense: Evaluation | None, names: Sequence[str]) -> pd.DataFrame:
    """Return one row for each edit and domain: n, every metric, retention of the telling score and its 90 % interval.

    `groups` is there where prompts share one.
    """
    rows, metric = [], _telling(evaluations, dense)
    for name, one in zip(names, evaluations, strict=True):
        shares = None if dense is None else retention(one, dense, metric)
        for domain, scores in one.by_domain.iterrows():
            row = {"edit": name, "domain": domain, "n": int(scores["n"])}
            row |= {"groups": one.groups_by_domain[str(domain)]} if one.shared_groups else {}
            row |= {key: scores[key] for key in one.metrics}
            if dense is not None and shares is not None and not one.is_dense:
                low, high = retention_interval(one, dense, str(domain), metric=metric)
                row |= {
                    "retention": shares.get(str(domain), float("nan")),
                    "retention_low": low,
                    "retention_high": high,
                }
            rows.append(row)
    return pd.DataFrame(rows)


def _above(scores: pd.DataFrame) -> str:
    """Return a line on why an interval in a table of scores ends above 1; "" where none does."""
    line = above_line(scores["retention_high"].dropna()) if "retention_high" in scores else ""
    return f"\n{line}" if line else ""


def _telling(evaluations: Sequence[Evaluation], dense: Evaluation | None) -> str:
    """Return the score whose retention is shown (see `evaluation.telling`)."""
    if dense is None:
        return "exact_match"
    return telling_score_of(dense, *(one for one in evaluations if not one.is_dense))


def _prompts(evaluation: Evaluation) -> str:
    """Return "45 prompts" or "231 prompts in 24 groups"."""
    return in_groups(len(evaluation.by_prompt), evaluation.n_groups)


def of_evaluation(evaluation: Evaluation, dense: Evaluation | None, item: Item | None) -> Result:
    """Return an evaluation beside the dense one: scores by domain; the table has every prompt."""
    if dense is not None:
        evaluation, dense = on_both(evaluation, dense)
    both = [evaluation] if dense is None or evaluation.is_dense else [dense, evaluation]
    scores, metric = score_table(both, dense, [edit_words(one.edit) for one in both]), _telling(both, dense)
    table = evaluation.by_prompt
    if dense is not None:
        table = table.assign(dense_match=dense.by_prompt["exact_match"], dense_nll=dense.by_prompt["answer_nll"])
    data = {
        **item_data(item),
        "key": evaluation.edit.key,
        "dropped": evaluation.edit.dropped,
        "prompts": evaluation.prompts,
        "set_aside": evaluation.set_aside,
        "by_domain": rows_of(scores),
        "by_prompt": rows_of(table),
        "stability": [] if dense is None else rows_of(stability(dense, evaluation)),
    }

    def sections() -> list[Section]:
        if dense is None:
            return [Section("Scores", edit_words(evaluation.edit), table=scores)]
        from vlm_analysis.export.story import outcome_frame
        from vlm_analysis.figures.outcomes import damage_bars

        bars = damage_bars(outcome_frame(evaluation, dense), metric=metric)
        return [
            Section("Scores", f"{edit_words(evaluation.edit)}. {told_lines(metric, evaluation)}".strip(), bars, scores)
        ]

    forms = {".json": lambda path: save_evaluation(evaluation, path)}
    about = "\n".join([*evaluation.model.disagreements, f"{evaluation.model.name}, {_prompts(evaluation)}"])
    lines = told_lines(metric, evaluation)
    shown = f"{grid(scores)}{_above(scores)}{aside(evaluation.set_aside, len(evaluation.by_prompt))}"
    words = f"{about}\n{lines}{shown}{kept_line(item)}"
    return Result("Evaluation", words, data, table, sections, forms)


def of_evaluations(evaluations: Sequence[Evaluation], names: Sequence[str], item: Item | None = None) -> Result:
    """Return a sweep: one row for each edit and domain, compared with the dense model if it is among them."""
    dense = next((one for one in evaluations if one.is_dense), None)
    table = score_table(evaluations, dense, names)
    table.insert(
        1, "dropped", [", ".join(map(str, one.edit.dropped)) for one in evaluations for _ in one.by_domain.index]
    )
    set_aside = {name: reason for one in evaluations for name, reason in one.set_aside.items()}
    data = {**item_data(item), "prompts": evaluations[0].prompts, "set_aside": set_aside, "rows": rows_of(table)}
    lines = told_lines(_telling(evaluations, dense), evaluations[0])
    text = f"{lines}{grid(table.drop(columns=['dropped']))}{_above(table)}{aside(set_aside)}"
    return Result("Sweep", f"{text}{kept_line(item)}", data, table)


def of_comparison(comparison: Comparison, item: Item | None) -> Result:
    """Return a comparison: the masks with the best retention on their worst domain, and the regimes; the table has every mask."""
    table, regime = mask_table(comparison), regimes(comparison)
    best_masks = table.sort_values(["worst", "budget"], ascending=[False, False]).head(BEST)
    columns = ["dropped", *(f"retention, {domain}" for domain in comparison.domains), "worst", "parameters_left"]
    words = [
        *filter(
            None,
            [
                telling_line(telling(comparison)),
                accepted_line(comparison.dense),
                unanswered_line(comparison.dense),
                taken_line(comparison),
            ],
        ),
        f"{counted(len(table), 'mask')} on {_prompts(comparison.dense)}; the {len(best_masks)} that keep most of their worst domain:",
        grid(best_masks[columns]),
        *regime_words(regime),
        *filter(None, [family_words(regime, family_of(comparison))]),
        *(f"{method}: {reason}" for method, reason in comparison.left_out.items()),
    ]

    def sections() -> list[Section]:
        from vlm_analysis.figures.curves import retention_curve
        from vlm_analysis.selection.compared.findings import cost_curve, retention_curves

        figure = retention_curve(retention_curves(comparison), bands=(), cost=cost_curve(comparison))
        return [Section("Retention over budgets", " ".join(regime_words(regime)), figure)]

    set_aside, n_prompts = comparison.dense.set_aside, len(comparison.dense.by_prompt)
    data = {**item_data(item), "masks": rows_of(table), "regimes": rows_of(regime), "left_out": comparison.left_out}
    data |= {"set_aside": set_aside}
    forms = {".npz": lambda path: save_comparison(comparison, path)}
    text = "\n".join(words) + aside(set_aside, n_prompts) + kept_line(item)
    return Result("Comparison of masks", text, data, table, sections, forms)


def of_responses(responses: Responses, question: str, edit: Edit, pictures: str) -> Result:
    """Return the responses of both models to a question about pictures, and where they differ."""
    divergence = responses.divergence
    table = pd.DataFrame({"token": list(divergence.tokens), "kl": divergence.kl, "differs": divergence.differs})
    said = f"Dense model: {responses.dense}\n{sentence(edit_words(edit))}: {responses.pruned}"
    words = f"{question}\nAsked about {pictures}.\n\n{said}\n\n{parting(responses)}"

    def sections() -> list[Section]:
        from vlm_analysis.figures.tokens import token_strip

        return [Section("Both answers", words, token_strip(divergence.tokens, divergence.kl, divergence.differs))]

    data: dict[str, Any] = {
        "question": question,
        "pictures": pictures,
        "dense": responses.dense,
        "pruned": responses.pruned,
        "key": edit.key,
    }
    data |= {"first_difference": divergence.first, "tokens": rows_of(table)}
    return Result("Both asked", words, data, table, sections)


def of_prompts(prompts: PromptSet, item: Item | None) -> Result:
    """Return a prompt set: one row per prompt."""
    rows = [(one.id, one.domain, one.question, one.answer, len(one.images)) for one in prompts]
    table = pd.DataFrame(rows, columns=["id", "domain", "question", "answer", "n_images"])
    if any(one.answers for one in prompts):
        table["answers"] = pd.Series([list(one.answers or ()) for one in prompts], dtype=object)
    if prompts.tasks:
        table["task"] = prompts.tasks
    if prompts.groups.shared:
        table["group"] = prompts.groups.names
    words = (
        f"{in_groups(len(prompts), prompts.groups.number)} of {', '.join(prompts.domains)}\n{grid(table.head(BEST))}"
    )
    more = f"\n… and {len(prompts) - BEST} more" if len(prompts) > BEST else ""
    more += aside(prompts.set_aside, len(prompts))
    data = {**item_data(item), "fingerprint": prompts.fingerprint, "prompts": rows_of(table)}
    data |= {"set_aside": dict(prompts.set_aside)}
    data |= {"read_as": prompts.read_as and str(prompts.read_as), "problems": [asdict(one) for one in prompts.problems]}
    return Result("Prompts", f"{words}{more}{kept_line(item)}", data, table)


def of_story(story: Story, item: Item) -> Result:
    """Return a story: its text, its figures, and the scores of its two models."""
    from vlm_analysis.export.document.document import document_of
    from vlm_analysis.export.document.page import write_document
    from vlm_analysis.export.story import answer_in
    from vlm_analysis.export.story_forms import story_text

    both = [story.dense, story.pruned]
    table = score_table(both, story.dense, [edit_words(one.edit) for one in both])
    data = {**item_data(item), "title": story.title, "by_domain": rows_of(table)}
    forms = {".html": lambda path: write_document(document_of(answer_in(story), story.recording), path)}
    return Result(story.title, f"{story_text(story)}{kept_line(item)}", data, table, forms=forms)


def of_items(items: Sequence[Item], root: str) -> Result:
    """Return what is saved: one row per item."""
    rows = [(one.kind, one.id, one.name, one.created[:16].replace("T", " "), one.model_name) for one in items]
    table = pd.DataFrame(rows, columns=["kind", "id", "name", "created", "model"])
    lines = [f"{kind:<12} {name_id}  {name}" for kind, name_id, name, _, _ in rows] or ["Nothing is saved yet."]
    return Result("Workspace", "\n".join([root, *lines]), {"root": root, "items": rows_of(table)}, table)

"""The Bench: the whole flow with memory, for scripts, the command line and pages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import MaskError
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.criteria import CRITERIA
from vlm_analysis.selection.criteria.damage import Damage
from vlm_analysis.selection.search.objective import Objective
from vlm_analysis.selection.strategies.many import COMPARED, RANDOM
from vlm_analysis.words import brief
from vlm_analysis.workbench import damages, evaluations, exports, recordings, searches, stories
from vlm_analysis.workbench.bench_contests import Contests
from vlm_analysis.workbench.bench_times import Times
from vlm_analysis.workbench.comparisons import Question, check_apart, compare_ways
from vlm_analysis.workbench.desk import prompts_item
from vlm_analysis.workbench.evaluations import OnPartial
from vlm_analysis.workbench.probes import Probes
from vlm_analysis.workbench.recordings import recorded_prompts
from vlm_analysis.workbench.recovering import Recovering
from vlm_analysis.workbench.responses import Responses, ask_both, see_prompt
from vlm_analysis.workbench.scans import Scans
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.widths import Widths
from vlm_analysis.workbench.workspace import Item

if TYPE_CHECKING:
    from vlm_analysis.evaluation.run.respond import Step
    from vlm_analysis.export.checkpoint import Manifest
    from vlm_analysis.export.serving.rules import Served
    from vlm_analysis.export.story import Story
    from vlm_analysis.models.load import LoadedModel
    from vlm_analysis.selection.compared.comparison import Comparison

ALL_CRITERIA = tuple(name for name in CRITERIA if name != RANDOM)


class Bench(Times, Scans, Probes, Widths, Recovering, Contests):
    """A model and a workspace: known results are opened, missing ones are measured and saved.

    **Nouns return, verbs save.** `recording`, `dense`, `scores`, `damage`, `scan`, `probe_answers`, `score_width`, `cost` and `latency`
    return a value; known parts are opened, the rest is measured. `record`, `evaluate`, `measure_damage`, `measure_scan`, `measure_probe`,
    `measure_width`, `measure_cost`, `measure_costs`, `compare`, `search`, `contest`, `recover`, `measure_recovery`, `tell_story` and
    `demo` save something new under a name and return its Item, whose value `open` returns; they too run only what is missing, except that
    times are always measured again. `ask` and `export` save nothing in the workspace.

    Prompts are a PromptSet, which is saved in the workspace, or the Item of one. Rows and scores are written to disk as they come.
    `on_progress` is called as `on_progress(done, total, message)`; raising `Cancelled` in it stops the work, and the same call continues
    from there, also after a kill. Any number of Benches and the dashboard may share a workspace.

    Args:
        model: a LoadedModel; a source for `load_model`, loaded when first needed; or a ModelSlot that holds the model. The Bench
            belongs to that model: it raises ModelError if the slot holds another one.
        workspace: a Workspace or its folder; that of STRATA_HOME, else of the user's home by default.
        project: the project of the workspace in which work is kept and looked for; that of `workspace` by default.
        options: of `load_model`, if `model` is a source.
    """

    def __repr__(self) -> str:
        return brief(self, self._source or f"model {str(self._model)[:8]}", repr(self.workspace))

    def loaded(self, *, on_progress: Progress = no_progress) -> LoadedModel:
        """Return the dense model."""
        return self._desk(on_progress).loaded

    def open(self, item: Item) -> Any:
        """Return the value behind a saved Item: a PromptSet, Recording, Edit, Evaluation, VisionScan, AnswerProbe, WidthScores,
        Comparison, Contest, Cost or Ledger, or a list of Evaluations.

        Raises:
            StrataError: the file behind it is missing, damaged or another item's.
        """
        return stories.open_saved(self.workspace, item)

    def story(self, item: Item) -> Story:
        """Return the story of an Item of `tell_story` or `demo`, or of version 0.1.

        Raises:
            StrataError: its file or its recording is missing or damaged.
        """
        return stories.open_saved_story(self.workspace, item)

    # -- recordings ------------------------------------------------------------------------------------------------

    def recording(
        self,
        prompts: PromptSet | Item,
        *,
        attention: bool = False,
        token_maps: bool = False,
        batch_size: int = 1,
        on_progress: Progress = no_progress,
    ) -> Recording:
        """Return the recording of the prompts with these options (see `vlm_analysis.record`)."""
        options = {"attention": attention, "token_maps": token_maps, "batch_size": batch_size}
        desk, item = self._at(prompts, on_progress)
        known = recordings.known_recording(desk, item, options)
        return known or open_item(recordings.record_prompts(desk, item, self._name(item), options, on_progress))

    def record(
        self,
        prompts: PromptSet | Item,
        name: str = "",
        *,
        attention: bool = False,
        token_maps: bool = False,
        batch_size: int = 1,
        on_progress: Progress = no_progress,
    ) -> Item:
        """Save a new recording; prompts that an earlier one with the same options holds, or an unfinished one, are not run again."""
        options = {"attention": attention, "token_maps": token_maps, "batch_size": batch_size}
        desk, item = self._at(prompts, on_progress)
        return recordings.record_prompts(desk, item, name or self._name(item), options, on_progress)

    # -- evaluations -----------------------------------------------------------------------------------------------

    def dense(
        self, prompts: PromptSet | Item, *, responses: bool = False, on_progress: Progress = no_progress
    ) -> Evaluation:
        """Return the dense model's evaluation; with `responses`, one with responses. One from disk has no log-probabilities."""
        desk, item = self._at(prompts, on_progress)
        known = evaluations.known_dense(desk, str(item.prompts), responses=responses)
        return known or evaluations.dense_evaluation(desk, open_item(item), item.name, on_progress, responses=responses)

    def scores(
        self,
        prompts: PromptSet | Item,
        edits: Sequence[Edit],
        *,
        on_partial: OnPartial | None = None,
        on_progress: Progress = no_progress,
    ) -> list[Evaluation]:
        """Return the Evaluation of each edit, in their order; for edits without changes, the dense one.

        `on_partial` is called after each batch with each edit's index and its Evaluation on the prompts so far.
        """
        desk, item = self._at(prompts, on_progress)
        return evaluations.scorer(desk, item, on_progress)(edits, on_partial)

    def evaluate(
        self,
        prompts: PromptSet | Item,
        edit: Edit,
        name: str = "",
        *,
        responses: bool = False,
        on_partial: Callable[[Evaluation, Evaluation], None] | None = None,
        on_progress: Progress = no_progress,
    ) -> Item:
        """Save the evaluation of an edit, and the dense model's; with `responses` both write theirs (see `vlm_analysis.evaluate`).

        `on_partial` gets the edit's scores and the dense model's before the responses are written.
        """
        desk, item = self._at(prompts, on_progress)
        return evaluations.evaluate_edit(
            desk, item, edit, on_progress, name=name, responses=responses, on_partial=on_partial
        )

    def damage(self, prompts: PromptSet | Item, *, on_progress: Progress = no_progress) -> Damage:
        """Return the damage of leaving out each layer alone; layers that cannot go have none.

        Raises:
            MaskError: no layer can go.
        """
        desk, item = self._at(prompts, on_progress)
        damage = damages.damage_of(desk, item, on_progress)
        if damage is None:
            raise MaskError(
                f"No damage was measured: expected a layer of {self._slot.loaded.name} that may go, got none."
            )
        return damage

    def measure_damage(self, prompts: PromptSet | Item, *, on_progress: Progress = no_progress) -> Item:
        """Save the evaluations of the dense model and of it without each layer alone."""
        desk, item = self._at(prompts, on_progress)
        return damages.measure_damage(desk, item, on_progress)

    # -- many masks ------------------------------------------------------------------------------------------------

    def compare(
        self,
        choose: PromptSet | Item,
        report: PromptSet | Item | None = None,
        *,
        criteria: Collection[str] = ALL_CRITERIA,
        strategies: Collection[str] = COMPARED,
        most: int | None = None,
        n_draws: int = 5,
        unprotect: bool = False,
        max_mib: int = 1024,
        preset: str = "",
        masks: Collection[str] = (),
        recover: Collection[str] = (),
        vision: int = 0,
        on_partial: Callable[[Comparison], None] | None = None,
        on_progress: Progress = no_progress,
    ) -> Item:
        """Save the comparison of every criterion and strategy at each budget from 1 to `most` (see `vlm_analysis.compare_masks`).

        Args:
            choose, report: the prompts that masks are chosen on, and those reported on; the same by default. `choose` may be the Item of a
                recording, for its prompts.
            criteria, strategies: keys of `CRITERIA` and `STRATEGIES`. Recordings and damage that they need are measured first.
            most: the largest budget; half of the layers, or all that may go, by default.
            n_draws: draws of each random method at each budget.
            unprotect: whether protected layers may go.
            max_mib: bound on the states kept for sharing, in MiB.
            preset: "domain-aware" compares the masks of `domain_aware_masks` in place of all that.
            masks: ids of saved masks, compared in place of all that.
            recover: how each mask is recovered too, on the prompts that masks are chosen on: hows of `recover`, or two as "ridge+small".
                Their edits are saved. `report` has to be other prompts.
            vision: how many edits in which vision tokens skip layers compete too, alone and beside every mask: those of `scan_front`, of a
                scan of the prompts that masks are chosen on, which is measured if needed.
            on_partial: called after each batch with the Comparison on the prompts so far.
        """
        rest = n_draws, unprotect, max_mib, preset, tuple(masks), tuple(recover), vision
        asked = Question("", "", tuple(criteria), tuple(strategies), 1 if most is None else most, *rest)
        item = prompts_item(self.workspace, choose)  # or a recording of them
        other = item if report is None else prompts_item(self.workspace, report)
        check_apart(item, other, asked)  # all that needs no model is refused before it is loaded
        desk = self._desk(on_progress)
        item = recorded_prompts(desk, item)
        if most is None:
            most = max(1, min(desk.loaded.n_layers // 2, len(desk.loaded.locks.free)))
        other = item if report is None else other
        question = replace(asked, choose=item.id, report=other.id, most=most)
        return compare_ways(desk, item, other, question, on_progress, on_partial)

    def search(
        self,
        prompts: PromptSet | Item,
        strategy: str,
        budget: int,
        objective: Objective | None = None,
        *,
        name: str = "",
        unprotect: bool = False,
        keep: Collection[int] = (),
        on_progress: Progress = no_progress,
        **settings: Any,
    ) -> Item:
        """Save the mask of `budget` layers from a search: "greedy", "beam" or "evolutionary".

        `unprotect` lets protected layers go too, `keep` names layers that stay; `settings` are those of `vlm_analysis.greedy`, `beam` and
        `evolve`, as `beside`, an edit that every mask stands beside.
        """
        desk, item = self._at(prompts, on_progress)
        arguments = (strategy, budget, objective or Objective())
        options: dict[str, Any] = {"name": name, "unprotect": unprotect, "keep": keep, **settings}
        return searches.search_mask(desk, item, *arguments, on_progress, **options)

    def tell_story(
        self,
        prompts: PromptSet | Item,
        *,
        on_partial: Callable[[Comparison], None] | None = None,
        on_progress: Progress = no_progress,
    ) -> Item:
        """Save the comparison of the methods of `vlm_analysis.compare`, with its recording, mask and evaluations (see `story`).

        Masks are chosen on one half of the prompts and reported on the other, where they can be split (`split_in_halves`). `on_partial`
        gets the comparison before the best masks are asked and layers are timed.
        """
        desk, item = self._at(prompts, on_progress)
        return stories.tell_story(desk.slot, desk.shelf, item, on_progress, on_partial)

    def demo(
        self,
        *,
        first: int | None = None,
        on_partial: Callable[[Comparison], None] | None = None,
        on_progress: Progress = no_progress,
    ) -> Item:
        """Save the same for the bundled model: masks are chosen on its packs and reported on their fellows.

        `first` limits the prompts of each; `on_partial` is that of `tell_story`.

        Any other model of this Bench is unloaded first; then the Bench belongs to the bundled one.
        """
        item = stories.demo(self._slot, self.workspace, on_progress, first=first, on_partial=on_partial)
        self._source, self._model = None, self._slot.fingerprint
        return item

    # -- nothing kept ----------------------------------------------------------------------------------------------

    def ask(
        self,
        prompt: Prompt,
        edit: Edit,
        *,
        on_partial: Callable[[Step], None] | None = None,
        on_progress: Progress = no_progress,
    ) -> Responses:
        """Return the responses of the dense and the edited model; `on_partial` gets both texts so far after each token."""
        return ask_both(self._desk(on_progress), prompt, edit, on_partial)

    def given(self, prompt: Prompt, *, on_progress: Progress = no_progress) -> tuple[str, dict[str, int]]:
        """Return the model's input text for a prompt, with template and placeholders, and its tokens by group."""
        return see_prompt(self._desk(on_progress), prompt)

    def serving(
        self, edit: Edit, folder: Path | str = "pruned", *, on_progress: Progress = no_progress
    ) -> list[Served]:
        """Return for each engine whether it loads the export of an edit, and by which command (see `vlm_analysis.will_it_serve`)."""
        from vlm_analysis.export.serving.rules import will_it_serve

        return will_it_serve(self._desk(on_progress).loaded, edit, folder)

    def export(
        self,
        edit: Edit,
        folder: Path | str,
        *,
        probe: PromptSet | Item | tuple[()] | None = None,
        masked: bool = False,
        on_progress: Progress = no_progress,
    ) -> Manifest:
        """Write the edited model as a checkpoint, its card with the evidence in the workspace (see `vlm_analysis.export_checkpoint`).

        `probe` are the prompts of which the probe in the folder is chosen: by default those of the bundled packs, so that none of your
        pictures leaves with the folder unless you say so. It takes some answers of the model; () writes no probe.
        """
        return exports.export_edit(self._desk(on_progress), edit, Path(folder), probe, on_progress, masked)

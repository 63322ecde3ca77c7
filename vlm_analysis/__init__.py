"""Strata: which decoder layers of a vision-language model you can do without, measured on your own prompts.

    load -> prompts -> record -> select -> edit -> evaluate -> export

Everything public is here: `from vlm_analysis import load_model, open_prompts, record`. A name is imported when it is asked for: `import
vlm_analysis` is quick, and torch comes with the first function that needs it. Module paths are private and may change.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vlm_analysis import gone

if TYPE_CHECKING:  # what `_HOMES` says, for type checkers and editors
    from vlm_analysis.edits.apply import apply_edit as apply_edit
    from vlm_analysis.edits.change import Change as Change
    from vlm_analysis.edits.edit import Edit as Edit, PruneMask as PruneMask
    from vlm_analysis.edits.files import (
        open_edit as open_edit,
        open_mask as open_mask,
        save_edit as save_edit,
        save_mask as save_mask,
    )
    from vlm_analysis.edits.foreign.lists import (
        mask_to_llama_cpp as mask_to_llama_cpp,
        mask_to_optipfair as mask_to_optipfair,
    )
    from vlm_analysis.edits.foreign.llm_drop import edit_to_llm_drop as edit_to_llm_drop
    from vlm_analysis.edits.foreign.puzzletron import mask_to_puzzletron as mask_to_puzzletron
    from vlm_analysis.edits.foreign.skipping import (
        edit_to_fastv as edit_to_fastv,
        edit_to_shortv as edit_to_shortv,
        edit_to_vtw as edit_to_vtw,
    )
    from vlm_analysis.edits.foreign.torch_pruning import edit_to_torch_pruning as edit_to_torch_pruning
    from vlm_analysis.edits.kinds.adapt import Adapt as Adapt
    from vlm_analysis.edits.kinds.drop import Drop as Drop
    from vlm_analysis.edits.kinds.drop_part import DropPart as DropPart
    from vlm_analysis.edits.kinds.fold import Fold as Fold
    from vlm_analysis.edits.kinds.narrow import Narrow as Narrow
    from vlm_analysis.edits.kinds.replace import Replace as Replace
    from vlm_analysis.edits.kinds.table import KINDS as KINDS
    from vlm_analysis.edits.kinds.tower import Tower as Tower
    from vlm_analysis.edits.kinds.vision import Vision as Vision
    from vlm_analysis.edits.learnt import Tensors as Tensors
    from vlm_analysis.edits.skipping import early_exit as early_exit, freeze as freeze, late_entry as late_entry
    from vlm_analysis.edits.sublayers import drop_parts as drop_parts
    from vlm_analysis.errors import StrataError as StrataError
    from vlm_analysis.evaluation.cost import (
        Cost as Cost,
        open_cost as open_cost,
        save_cost as save_cost,
        speedup as speedup,
    )
    from vlm_analysis.evaluation.evaluation import (
        Evaluation as Evaluation,
        open_evaluation as open_evaluation,
        retention as retention,
        retention_interval as retention_interval,
        save_evaluation as save_evaluation,
    )
    from vlm_analysis.evaluation.matching import (
        normalised_match as normalised_match,
        numeric_match as numeric_match,
    )
    from vlm_analysis.evaluation.pivots import find_pivots as find_pivots
    from vlm_analysis.evaluation.run.evaluate import evaluate as evaluate
    from vlm_analysis.evaluation.run.respond import stream_both as stream_both
    from vlm_analysis.evaluation.run.scan import scan_vision as scan_vision
    from vlm_analysis.evaluation.run.sweep import sweep as sweep
    from vlm_analysis.evaluation.run.timing import measure_cost as measure_cost, measure_costs as measure_costs
    from vlm_analysis.evaluation.scan import VisionScan as VisionScan
    from vlm_analysis.evaluation.scanfile import open_scan as open_scan, save_scan as save_scan
    from vlm_analysis.evaluation.stability import stability as stability
    from vlm_analysis.export.adapter import export_adapter as export_adapter
    from vlm_analysis.export.checkpoint import export_checkpoint as export_checkpoint
    from vlm_analysis.export.dialects import (
        mask_to_csv as mask_to_csv,
        mask_to_mergekit as mask_to_mergekit,
        open_dialect as open_dialect,
    )
    from vlm_analysis.export.harness import export_task as export_task
    from vlm_analysis.export.probe.compare import probe_server as probe_server
    from vlm_analysis.export.serving.rules import will_it_serve as will_it_serve
    from vlm_analysis.export.story import Story as Story
    from vlm_analysis.model_info import Locks as Locks
    from vlm_analysis.models.load import LoadedModel as LoadedModel, load_model as load_model
    from vlm_analysis.progress import Cancelled as Cancelled
    from vlm_analysis.prompts.halves import split_in_halves as split_in_halves
    from vlm_analysis.prompts.hubdata import HubDataset as HubDataset, hub_dataset as hub_dataset
    from vlm_analysis.prompts.opening import (
        open_prompts as open_prompts,
        preview_prompts as preview_prompts,
    )
    from vlm_analysis.prompts.prompts import Prompt as Prompt, PromptSet as PromptSet
    from vlm_analysis.prompts.suites import SUITES as SUITES, probe_prompts as probe_prompts
    from vlm_analysis.prompts.writing import write_prompts as write_prompts
    from vlm_analysis.recording.answerprobe import AnswerProbe as AnswerProbe
    from vlm_analysis.recording.joining import join_recordings as join_recordings
    from vlm_analysis.recording.measures import MEASURES as MEASURES
    from vlm_analysis.recording.probefile import (
        open_answer_probe as open_answer_probe,
        save_answer_probe as save_answer_probe,
    )
    from vlm_analysis.recording.probing import probe_answers as probe_answers
    from vlm_analysis.recording.record import record as record
    from vlm_analysis.recording.recording import (
        Recording as Recording,
        open_recording as open_recording,
        save_recording as save_recording,
    )
    from vlm_analysis.recording.towertable import tower_similarity as tower_similarity
    from vlm_analysis.recovery.closed_form import repair as repair
    from vlm_analysis.recovery.finetune.finetune import finetune as finetune
    from vlm_analysis.recovery.ledger import Ledger as Ledger, open_ledger as open_ledger, save_ledger as save_ledger
    from vlm_analysis.recovery.replacing import replace_window as replace_window
    from vlm_analysis.selection.certainty.conditions import (
        ConditionsCheck as ConditionsCheck,
        conditions_against_damage as conditions_against_damage,
    )
    from vlm_analysis.selection.compared.answer import Answer as Answer, answer_of as answer_of
    from vlm_analysis.selection.compared.answerwords import headline as headline
    from vlm_analysis.selection.compared.claims import claims as claims
    from vlm_analysis.selection.compared.comparison import (
        Comparison as Comparison,
        open_comparison as open_comparison,
        save_comparison as save_comparison,
    )
    from vlm_analysis.selection.compared.findings import mask_table as mask_table
    from vlm_analysis.selection.compared.published import published_retention as published_retention
    from vlm_analysis.selection.compared.recovered import as_recovered as as_recovered
    from vlm_analysis.selection.compared.verdicts import regimes as regimes
    from vlm_analysis.selection.contest.contest import Contest as Contest, Entry as Entry
    from vlm_analysis.selection.contest.file import open_contest as open_contest, save_contest as save_contest
    from vlm_analysis.selection.criteria.bands import SkipBands as SkipBands, skip_bands as skip_bands
    from vlm_analysis.selection.criteria.criteria import CRITERIA as CRITERIA
    from vlm_analysis.selection.criteria.damage import Damage as Damage, read_damage as read_damage
    from vlm_analysis.selection.criteria.redundancy import probe_table as probe_table, redundancies as redundancies
    from vlm_analysis.selection.criteria.scores import LayerScores as LayerScores
    from vlm_analysis.selection.criteria.scoring import score_layers as score_layers
    from vlm_analysis.selection.search.beam import beam as beam
    from vlm_analysis.selection.search.evolve import evolve as evolve
    from vlm_analysis.selection.search.greedy import greedy as greedy
    from vlm_analysis.selection.search.mixes import Mix as Mix, search_mix as search_mix
    from vlm_analysis.selection.search.objective import Objective as Objective
    from vlm_analysis.selection.strategies.budgets import Share as Share
    from vlm_analysis.selection.strategies.domain_aware import (
        READINGS as READINGS,
        domain_aware_mask as domain_aware_mask,
        domain_aware_masks as domain_aware_masks,
    )
    from vlm_analysis.selection.strategies.make import make_mask as make_mask, random_masks as random_masks
    from vlm_analysis.selection.strategies.many import many_masks as many_masks
    from vlm_analysis.selection.strategies.strategies import STRATEGIES as STRATEGIES
    from vlm_analysis.selection.tower import make_tower as make_tower, score_tower as score_tower
    from vlm_analysis.selection.vision import (
        exit_by_kl as exit_by_kl,
        freeze_by_kl as freeze_by_kl,
        scan_front as scan_front,
        span_by_similarity as span_by_similarity,
        within_flops as within_flops,
    )
    from vlm_analysis.selection.width.choosing import make_narrow as make_narrow
    from vlm_analysis.selection.width.file import (
        open_width_scores as open_width_scores,
        save_width_scores as save_width_scores,
    )
    from vlm_analysis.selection.width.scores import WidthScores as WidthScores
    from vlm_analysis.selection.width.scoring import score_width as score_width
    from vlm_analysis.workbench.bench import Bench as Bench
    from vlm_analysis.workbench.joining import join_shards as join_shards
    from vlm_analysis.workbench.pipeline import compare as compare, compare_masks as compare_masks
    from vlm_analysis.workbench.shards import work_on_shard as work_on_shard

_HOMES = {
    "edits.apply": ("apply_edit",),
    "edits.change": ("Change",),
    "edits.edit": (
        "Edit",
        "PruneMask",
    ),
    "edits.files": (
        "open_edit",
        "open_mask",
        "save_edit",
        "save_mask",
    ),
    "edits.foreign.lists": (
        "mask_to_llama_cpp",
        "mask_to_optipfair",
    ),
    "edits.foreign.llm_drop": ("edit_to_llm_drop",),
    "edits.foreign.puzzletron": ("mask_to_puzzletron",),
    "edits.foreign.skipping": ("edit_to_fastv", "edit_to_shortv", "edit_to_vtw"),
    "edits.foreign.torch_pruning": ("edit_to_torch_pruning",),
    "edits.kinds.adapt": ("Adapt",),
    "edits.kinds.drop": ("Drop",),
    "edits.kinds.drop_part": ("DropPart",),
    "edits.kinds.fold": ("Fold",),
    "edits.kinds.narrow": ("Narrow",),
    "edits.kinds.replace": ("Replace",),
    "edits.kinds.table": ("KINDS",),
    "edits.kinds.tower": ("Tower",),
    "selection.tower": ("make_tower", "score_tower"),
    "edits.kinds.vision": ("Vision",),
    "edits.learnt": ("Tensors",),
    "edits.skipping": ("early_exit", "freeze", "late_entry"),
    "edits.sublayers": ("drop_parts",),
    "model_info": ("Locks",),
    "errors": ("StrataError",),
    "evaluation.cost": (
        "Cost",
        "open_cost",
        "save_cost",
        "speedup",
    ),
    "evaluation.evaluation": (
        "Evaluation",
        "open_evaluation",
        "retention",
        "retention_interval",
        "save_evaluation",
    ),
    "evaluation.matching": (
        "normalised_match",
        "numeric_match",
    ),
    "evaluation.pivots": ("find_pivots",),
    "evaluation.run.evaluate": ("evaluate",),
    "evaluation.run.respond": ("stream_both",),
    "evaluation.run.scan": ("scan_vision",),
    "evaluation.run.sweep": ("sweep",),
    "evaluation.run.timing": (
        "measure_cost",
        "measure_costs",
    ),
    "evaluation.scan": ("VisionScan",),
    "evaluation.scanfile": ("open_scan", "save_scan"),
    "evaluation.stability": ("stability",),
    "export.adapter": ("export_adapter",),
    "export.checkpoint": ("export_checkpoint",),
    "export.dialects": (
        "mask_to_csv",
        "mask_to_mergekit",
        "open_dialect",
    ),
    "export.harness": ("export_task",),
    "export.probe.compare": ("probe_server",),
    "export.serving.rules": ("will_it_serve",),
    "export.story": ("Story",),
    "models.load": (
        "LoadedModel",
        "load_model",
    ),
    "progress": ("Cancelled",),
    "prompts.halves": ("split_in_halves",),
    "prompts.hubdata": ("HubDataset", "hub_dataset"),
    "prompts.opening": (
        "open_prompts",
        "preview_prompts",
    ),
    "prompts.prompts": (
        "Prompt",
        "PromptSet",
    ),
    "prompts.suites": (
        "SUITES",
        "probe_prompts",
    ),
    "prompts.writing": ("write_prompts",),
    "recording.answerprobe": ("AnswerProbe",),
    "recording.joining": ("join_recordings",),
    "recording.measures": ("MEASURES",),
    "recording.probefile": ("open_answer_probe", "save_answer_probe"),
    "recording.probing": ("probe_answers",),
    "recording.record": ("record",),
    "recording.towertable": ("tower_similarity",),
    "recording.recording": (
        "Recording",
        "open_recording",
        "save_recording",
    ),
    "recovery.closed_form": ("repair",),
    "recovery.finetune.finetune": ("finetune",),
    "recovery.ledger": ("Ledger", "open_ledger", "save_ledger"),
    "recovery.replacing": ("replace_window",),
    "selection.certainty.conditions": ("ConditionsCheck", "conditions_against_damage"),
    "selection.compared.answer": ("Answer", "answer_of"),
    "selection.compared.answerwords": ("headline",),
    "selection.compared.claims": ("claims",),
    "selection.compared.comparison": (
        "Comparison",
        "open_comparison",
        "save_comparison",
    ),
    "selection.compared.findings": ("mask_table",),
    "selection.compared.published": ("published_retention",),
    "selection.compared.recovered": ("as_recovered",),
    "selection.compared.verdicts": ("regimes",),
    "selection.contest.contest": ("Contest", "Entry"),
    "selection.contest.file": ("open_contest", "save_contest"),
    "selection.criteria.bands": ("SkipBands", "skip_bands"),
    "selection.criteria.criteria": ("CRITERIA",),
    "selection.criteria.damage": (
        "Damage",
        "read_damage",
    ),
    "selection.criteria.redundancy": ("probe_table", "redundancies"),
    "selection.criteria.scores": ("LayerScores",),
    "selection.criteria.scoring": ("score_layers",),
    "selection.search.beam": ("beam",),
    "selection.search.evolve": ("evolve",),
    "selection.search.greedy": ("greedy",),
    "selection.search.mixes": ("Mix", "search_mix"),
    "selection.search.objective": ("Objective",),
    "selection.strategies.budgets": ("Share",),
    "selection.strategies.domain_aware": (
        "READINGS",
        "domain_aware_mask",
        "domain_aware_masks",
    ),
    "selection.strategies.make": (
        "make_mask",
        "random_masks",
    ),
    "selection.strategies.many": ("many_masks",),
    "selection.strategies.strategies": ("STRATEGIES",),
    "selection.vision": ("exit_by_kl", "freeze_by_kl", "scan_front", "span_by_similarity", "within_flops"),
    "selection.width.choosing": ("make_narrow",),
    "selection.width.file": ("open_width_scores", "save_width_scores"),
    "selection.width.scores": ("WidthScores",),
    "selection.width.scoring": ("score_width",),
    "workbench.bench": ("Bench",),
    "workbench.joining": ("join_shards",),
    "workbench.pipeline": (
        "compare",
        "compare_masks",
    ),
    "workbench.shards": ("work_on_shard",),
}
"""By module, the public names that it holds."""

_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)
__version__ = "0.2.0.dev0"

gone.watch()


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"vlm_analysis has no public name {name!r} (see vlm_analysis.__all__)")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Whether Skip-It's conditions predict what a scan measured, for the subcommand scan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlm_analysis.progress import Progress

if TYPE_CHECKING:
    from vlm_analysis.evaluation.scan import VisionScan
    from vlm_analysis.workbench.bench import Bench
    from vlm_analysis.workbench.workspace import Item


def conditions_of(
    bench: Bench, found: VisionScan, prompts: Item, recording: str, domain: str | None, progress: Progress
) -> dict[str, Any]:
    """Return the curves of Skip-It's redundancies and what they tell of the damage, as rows and sentences.

    Where the answers of the prompts cannot be probed, the conditions of the recording stand alone, and the reason among the sentences.
    """
    from vlm_analysis.cli.lookup import find_recording
    from vlm_analysis.cli.output import rows_of
    from vlm_analysis.errors import RecordingError
    from vlm_analysis.recording.probing import probe_answers
    from vlm_analysis.selection.certainty.conditions import conditions_against_damage
    from vlm_analysis.selection.criteria.redundancy import redundancies

    recorded, probe, said = find_recording(bench.workspace, recording), None, list[str]()
    try:
        probe = probe_answers(bench.loaded(on_progress=progress), bench.open(prompts), on_progress=progress)
    except RecordingError as error:
        said = [str(error)]
    told = conditions_against_damage(recorded, found, probe, domain=domain)
    curves = redundancies(recorded, probe, domain=domain).reset_index()
    return {"sentences": [*told.sentences, *said], "table": rows_of(told.table), "curves": rows_of(curves)}

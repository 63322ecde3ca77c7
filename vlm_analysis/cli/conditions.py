"""The subcommand that probes the answers, and whether Skip-It's conditions predict what a scan measured, for the subcommand scan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_analysis.cli.arguments import Name, Prompts, Reading
from vlm_analysis.cli.base import command
from vlm_analysis.cli.output import Result
from vlm_analysis.progress import Progress

if TYPE_CHECKING:
    from vlm_analysis.evaluation.scan import VisionScan
    from vlm_analysis.recording.answerprobe import AnswerProbe
    from vlm_analysis.workbench.bench import Bench
    from vlm_analysis.workbench.workspace import Item


@command("Record", ".npz")
def probe_answers(
    prompts: Prompts,
    bench: Bench,
    on_progress: Progress,
    reading: Reading,
    target: Annotated[str | None, typer.Option(help="The domain that is shown; all by default.")] = None,
    name: Name = "",
) -> Result:
    """Tell around which layers answers can be read.

    A ridge probe of the mean vision and of the mean text state is asked behind every layer and before it, on prompts that it was not
    fitted on. A probe that is saved is opened, and not measured again; scan --conditions takes it.
    """
    from vlm_analysis.cli.lookup import find_prompts
    from vlm_analysis.workbench.probes import find_probe

    prompt_set = find_prompts(bench.workspace, prompts, on_progress, reading)
    model = bench.loaded(on_progress=on_progress).fingerprint
    item = None if name else find_probe(bench.workspace, model, prompt_set)
    item = item or bench.measure_probe(prompt_set, name, on_progress=on_progress)
    return of_probe(bench.open(item), item, target)


def of_probe(found: AnswerProbe, item: Item | None, domain: str | None = None) -> Result:
    """Return a probe of the answers: accuracy behind each layer and the two gains; the table has every number, by domain too."""
    import pandas as pd

    from vlm_analysis.cli.output import rows_of
    from vlm_analysis.cli.results import aside, grid, item_data, kept_line
    from vlm_analysis.recording.answerprobe import part_lines
    from vlm_analysis.recording.probefile import save_answer_probe
    from vlm_analysis.selection.criteria.redundancy import probe_table
    from vlm_analysis.words import in_groups

    domains = list(dict.fromkeys(found.domains))
    tables = {"all": probe_table(found)} | {one: probe_table(found, domain=one) for one in domains if len(domains) > 1}
    told = tables["all"] if domain is None else probe_table(found, domain=domain)
    table = pd.concat([one.reset_index().assign(domain=part) for part, one in tables.items()], ignore_index=True)
    shown = pd.DataFrame({"layer": range(found.model.n_layers)})
    for group in ("vision", "text"):
        rows = told.loc[group].reset_index()
        shown[f"{group}, right"] = rows["accuracy_behind"]
        shown[f"{group}, gain"] = rows["functional"]
        shown[f"{group}, nats"] = rows["informational"]
    rows = found.rows(domain)
    n_groups = len({found.groups[row] for row in rows})
    about = (
        f"{found.model.name} on {in_groups(len(rows), n_groups)}: share of answers that a probe of the mean state behind a layer names, "
        "and what it gains by the layer, in answers and in nats"
    )
    left = "".join(f"\nLeft out: {part}: {reason}" for part, reason in found.left_out.items())
    data = {**item_data(item), "model": found.model.fingerprint, "prompts": found.prompts, "rows": rows_of(table)}
    data |= {"parts": rows_of(found.parts.reset_index()), "left_out": found.left_out, "set_aside": found.set_aside}
    words = (
        "\n".join([about, *part_lines(found)])
        + f"{left}\n{grid(shown)}{aside(found.set_aside, len(found.ids))}{kept_line(item)}"
    )
    return Result(
        "Probe of the answers", words, data, table, forms={".npz": lambda path: save_answer_probe(found, path)}
    )


def conditions_of(
    bench: Bench, found: VisionScan, prompts: Item, recording: str, domain: str | None, progress: Progress
) -> dict[str, Any]:
    """Return the curves of Skip-It's redundancies and what they tell of the damage, as rows and sentences; the probe is the kept one.

    Where the answers of the prompts cannot be probed, the conditions of the recording stand alone, and the reason among the sentences.
    """
    from vlm_analysis.cli.lookup import find_recording
    from vlm_analysis.cli.output import rows_of
    from vlm_analysis.errors import RecordingError
    from vlm_analysis.selection.certainty.conditions import conditions_against_damage
    from vlm_analysis.selection.criteria.redundancy import redundancies

    recorded, probe, said = find_recording(bench.workspace, recording), None, list[str]()
    try:
        probe = bench.probe_answers(prompts, on_progress=progress)
    except RecordingError as error:
        said = [str(error)]
    told = conditions_against_damage(recorded, found, probe, domain=domain)
    curves = redundancies(recorded, probe, domain=domain).reset_index()
    return {"sentences": [*told.sentences, *said], "table": rows_of(told.table), "curves": rows_of(curves)}

"""What vision tokens that skip layers cost in answers, on fresh drawings: the scan, frozen against absent, layers × vision, and DeepStack.

    python -m benchmarks.vision_evidence run OUT                        # the bundled model, until 500 drawings a domain are done
    python -m benchmarks.vision_evidence run OUT --model FOLDER --only scan late-bare  # of a model without DeepStack the scan alone
    python -m benchmarks.vision_evidence run OUT --model FOLDER --only scan --tasks shape count-all  # these tasks of the drawings alone
    python -m benchmarks.vision_evidence times OUT                      # processor time of a prefill by each edit of the front
    python -m benchmarks.vision_evidence conditions OUT                 # Skip-It's redundancies on the drawings that were scanned
    python -m benchmarks.vision_evidence tables OUT [OUT OF A MODEL WITH DEEPSTACK, OUT OF ONE WITHOUT]

Drawings come in rounds of 50 a domain, and the file of a round and part is written when it is done; one that is there is not run again,
so a run that was stopped goes on, and tables are of the rounds that are done in all their parts. All drawings are of a split of their own,
which neither training nor the packs have. Layers to drop were chosen on the bundled packs, by the KL of leaving out each alone. Intervals
are at 90 %.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlm_analysis import (
    Edit,
    LoadedModel,
    PromptSet,
    PruneMask,
    Vision,
    VisionScan,
    conditions_against_damage,
    early_exit,
    freeze,
    late_entry,
    load_model,
    open_prompts,
    probe_answers,
    record,
    redundancies,
    scan_vision,
    skip_bands,
    sweep,
)
from vlm_analysis.evaluation.intervals import share_bands, tailed_bands
from vlm_analysis.evaluation.scan import DENSE, EARLY_EXIT, FROZEN, LATE_ENTRY
from vlm_analysis.files import write_atomically
from vlm_analysis.pocket.card import as_prompts
from vlm_analysis.pocket.tasks import GENERAL, MATH, make_examples

ROUND, SPLIT, FORM = 50, "vision evidence", "sliced"
PARTS = ("scan", "absent", "late-bare", "front")
ABSENT, BARE = "absent alone", "late entry, no DeepStack features"
DROPS = (0, 1, 2, 3, 4)
DOMAINS = (MATH, GENERAL)
SCORES = ["exact_match", "answer_nll", "kl_to_dense"]
DEEPSTACK = {"bundled": ("scan", "late-bare"), "with": ("scan", "late-bare"), "without": ("scan",)}  # parts by model
LEAST_RIGHT = 0.7  # of a task's drawings, by both dense models, for DeepStack to be compared on it


def drawn(n: int) -> PromptSet:
    """Return the first n drawings of each domain, with their tasks, domains in turn by rounds."""
    of = {domain: make_examples(domain, n, split=SPLIT) for domain in DOMAINS}
    rounds = [of[domain][first : first + ROUND] for first in range(0, n, ROUND) for domain in DOMAINS]
    examples = [one for part in rounds for one in part]
    return PromptSet(replace(prompt, task=one.task) for prompt, one in zip(as_prompts(examples), examples, strict=True))


def vision_choices(n_layers: int) -> dict[str, Edit]:
    """Return what vision tokens do on the front, by its words."""
    exits = {f"exit at {k}": early_exit(n_layers, k, form=FORM) for k in (14, 13, 12, 11, 10)}
    ends = {f"frozen {k}-15": freeze(n_layers, range(k, n_layers), form=FORM) for k in (13, 10, 7)}
    both = {"frozen 10-12, exit at 13": freeze(n_layers, (10, 11, 12), form=FORM) + early_exit(n_layers, 13, form=FORM)}
    return {"all layers": Edit(n_layers)} | exits | ends | both


def front_edits(n_layers: int, order: list[int]) -> dict[str, Edit]:
    """Return the grid of dropped layers and vision choices, by "k dropped; words"."""
    found = {}
    for n_dropped in DROPS:
        mask = PruneMask(n_layers, order[:n_dropped])
        for name, edit in vision_choices(n_layers).items():
            found[f"{n_dropped}; {name}"] = edit + mask if n_dropped else edit
    return found


def drop_order(loaded: LoadedModel, out: Path) -> list[int]:
    """Return the layers that may go, least KL first, when each is left out alone on the bundled packs; kept in a file."""
    path = out / "order.json"
    if not path.exists():
        prompts = open_prompts("math") + open_prompts("general")
        stay = {*loaded.locks.protected, *loaded.locks.locked}
        masks = [PruneMask(loaded.n_layers, [layer]) for layer in range(loaded.n_layers) if layer not in stay]
        kl = {
            mask.dropped[0]: float(one.by_prompt["kl_to_dense"].mean())
            for mask, one in zip(masks, sweep(loaded, prompts, masks), strict=True)
        }
        write_atomically(path, lambda part: part.write_text(json.dumps(sorted(kl, key=kl.__getitem__)), "utf-8"))
    return json.loads(path.read_text("utf-8"))


def named_edits(loaded: LoadedModel, part: str, out: Path) -> dict[tuple[str, int], Edit]:
    """Return the edits of a part by way and layer."""
    n_layers = loaded.n_layers
    if part == "absent":
        return {(ABSENT, layer): Edit(n_layers, (Vision(absent=(layer,), form=FORM),)) for layer in range(n_layers)}
    if part == "late-bare":
        return {(BARE, k): late_entry(n_layers, k, form=FORM, deepstack=False) for k in range(1, n_layers)}
    return {(name, -1): edit for name, edit in front_edits(n_layers, drop_order(loaded, out)).items()}


def run_part(loaded: LoadedModel, prompts: PromptSet, part: str, out: Path) -> pd.DataFrame:
    """Return one row for each edit of the part and prompt."""
    if part == "scan":
        scan = scan_vision(loaded, prompts, form=FORM)
        about = {name: getattr(scan, name) for name in ("n_vision", "n_text", "attention_size", "kv_parameters")}
        write_atomically(out / "about.json", lambda file: file.write_text(json.dumps(about), "utf-8"))
        frame = scan.by_prompt
    else:
        edits = named_edits(loaded, part, out)
        rows = [
            one.by_prompt[["id", "domain", *SCORES]].assign(way=way, layer=layer)
            for (way, layer), one in zip(edits, sweep(loaded, prompts, list(edits.values())), strict=True)
        ]
        frame = pd.concat(rows)
    tasks = {str(prompt.id): prompt.task for prompt in prompts}
    return frame.assign(task=frame["id"].map(tasks), exact_match=frame["exact_match"].astype(float))


def run(out: Path, model: str, n: int, only: Iterable[str], tasks: Collection[str]) -> None:
    """Run what is missing, round by round; of some tasks, or of all where none is named."""
    loaded, prompts = load_model(model), PromptSet(one for one in drawn(n) if not tasks or one.task in tasks)
    out.mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(range(0, len(prompts), 2 * ROUND)):
        for part in only:
            path = out / f"{part}-{number}.parquet"
            if path.exists():
                continue
            begun = time.process_time()
            frame = run_part(loaded, prompts[first : first + 2 * ROUND], part, out)
            write_atomically(path, lambda file, frame=frame: frame.to_parquet(file))
            print(
                f"{time.strftime('%H:%M')} {path.name}: {time.process_time() - begun:.0f} s of processor time",
                flush=True,
            )


def times(out: Path, n_prompts: int = 8, n_rounds: int = 6) -> None:
    """Measure the processor time of a prefill with a cache by each edit of the front, in turn, as a share of the dense model's; medians."""
    import torch

    from vlm_analysis import apply_edit
    from vlm_analysis.models.inputs import encode

    loaded = load_model()
    items = [encode(loaded, prompt).tensors for prompt in drawn(ROUND)[: 2 * ROUND : 2 * ROUND // n_prompts]]
    views = {
        name: apply_edit(loaded.model, edit)
        for name, edit in front_edits(loaded.n_layers, drop_order(loaded, out)).items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in views}
    for _ in range(n_rounds + 1):
        for name, view in views.items():
            begun = time.process_time()
            with torch.inference_mode():
                for item in items:
                    view(**item, use_cache=True, logits_to_keep=1)
            seconds[name].append(time.process_time() - begun)
    took = {name: float(np.median(each[1:])) for name, each in seconds.items()}  # the first round warms up
    dense = took[next(iter(took))]
    print(f"dense: {1e3 * dense / len(items):.1f} ms of processor time a prefill")
    write_atomically(
        out / "times.json",
        lambda file: file.write_text(json.dumps({name: one / dense for name, one in took.items()}), "utf-8"),
    )


def opened(out: Path, parts: Iterable[str]) -> pd.DataFrame:
    """Return the rows of all rounds that are done in these parts."""
    done = [{int(path.stem.rpartition("-")[2]) for path in out.glob(f"{part}-*.parquet")} for part in parts]
    rounds = sorted(set.intersection(*done))
    return pd.concat([pd.read_parquet(out / f"{part}-{number}.parquet") for number in rounds for part in parts])


def shares(frame: pd.DataFrame) -> tuple[float, float, float]:
    """Return the exact match in percent with the ends of its interval."""
    hits = frame["exact_match"].to_numpy() > 0
    low, high = share_bands(hits[None], np.ones((1, len(hits)), bool), np.arange(len(hits)))[:, 0]
    return 100 * hits.mean(), 100 * low, 100 * high


def cell(frame: pd.DataFrame, way: str, layer: int, domain: str | None = None, *, interval: bool = False) -> str:
    """Return the exact match of a way in percent; "" where it was not run."""
    rows = frame[(frame["way"] == way) & (frame["layer"] == layer)]
    rows = rows if domain is None else rows[rows["domain"] == domain]
    if rows.empty:
        return ""
    value, low, high = shares(rows)
    return f"{value:.1f} ({low:.1f} to {high:.1f})" if interval else f"{value:.1f}"


def kl_cell(frame: pd.DataFrame, way: str, layer: int) -> str:
    rows = frame[(frame["way"] == way) & (frame["layer"] == layer)]
    values = rows["kl_to_dense"].to_numpy(float)
    low, high = tailed_bands(values[None], np.arange(len(values)))[:, 0]
    return f"{values.mean():.2g}" + ("" if np.isnan(low) else f" ({low:.2g} to {high:.2g})")


def markdown(table: pd.DataFrame, form: str = ".1f") -> str:
    """Return a frame of numbers as a table in Markdown."""
    head = f"| | {' | '.join(map(str, table.columns))} |\n| --- |{' ---: |' * len(table.columns)}"
    rows = zip(table.index, table.to_numpy(float), strict=True)
    return "\n".join(
        [head, *(f"| {name} | {' | '.join(format(value, form) for value in row)} |" for name, row in rows)]
    )


def scan_table(out: Path) -> None:
    frame = opened(out, ("scan", "absent"))
    n = [len(frame[(frame["way"] == DENSE) & (frame["domain"] == domain)]) for domain in DOMAINS]
    print(
        f"\nn = {n[0]} math, {n[1]} general; dense {cell(frame, DENSE, -1, MATH)} and {cell(frame, DENSE, -1, GENERAL)} %\n"
    )
    heads = [
        f"{name}, {domain}"
        for name in ("enters at k", "leaves at k", "frozen in k", "absent in k")
        for domain in DOMAINS
    ]
    print(f"| k | {' | '.join(heads)} |\n| ---: |{' ---: |' * len(heads)}")
    for k in range(int(frame["layer"].max()) + 1):
        cells = [cell(frame, way, k, domain) for way in (LATE_ENTRY, EARLY_EXIT, FROZEN, ABSENT) for domain in DOMAINS]
        print(f"| {k} | {' | '.join(cells)} |")
    print("\n| k | KL, frozen in k, nats | KL, absent in k, nats |\n| ---: | ---: | ---: |")
    for k in range(int(frame[frame["way"] == FROZEN]["layer"].max()) + 1):
        print(f"| {k} | {kl_cell(frame, FROZEN, k)} | {kl_cell(frame, ABSENT, k)} |")


def front_table(out: Path, loaded: LoadedModel) -> None:
    frame, order = opened(out, ("front",)), drop_order(loaded, out)
    scan = scan_of(out, loaded, pd.DataFrame())
    path, rows = out / "times.json", []
    took = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for name, edit in front_edits(loaded.n_layers, order).items():
        both = min(shares(frame[(frame["way"] == name) & (frame["domain"] == domain)])[0] for domain in DOMAINS)
        rows.append((scan.flops_share(edit), both, name))
    rows.sort()
    best = -1.0
    print(
        f"\nLayers are dropped in the order {order[: max(DROPS)]}; of the grid stand the front and what skips on one axis alone.\n"
    )
    print("| share of FLOPs | share of time | layers dropped | vision tokens | math, % | general, % | on the front |")
    print("| ---: | ---: | ---: | --- | ---: | ---: | --- |")
    for flops, both, name in rows:
        dropped, words = name.split("; ")
        scores = [cell(frame, name, -1, domain, interval=True) for domain in DOMAINS]
        if both <= best and dropped != "0" and words != "all layers":
            continue
        print(
            f"| {flops:.2f} | {took.get(name, np.nan):.2f} | {dropped} | {words} | {' | '.join(scores)} | {'yes' if both > best else ''} |"
        )
        best = max(best, both)


def deepstack_table(of: dict[str, Path]) -> None:
    """Print what skipping costs models with and without DeepStack, on the tasks that all of them answer."""
    frames = {name: opened(out, DEEPSTACK[name]) for name, out in of.items()}
    right = {name: frame[frame["way"] == DENSE].groupby("task")["exact_match"].mean() for name, frame in frames.items()}
    table = pd.DataFrame(right)
    n_each = [len(frame[frame["way"] == DENSE]) for frame in frames.values()]
    print(f"\nDense exact match by task, n = {n_each}:\n\n{markdown(100 * table)}")
    tasks = [str(task) for task in table.index[(table >= LEAST_RIGHT).all(axis=1)]]
    print(f"\nTasks that all answer to {LEAST_RIGHT:.0%}: {', '.join(tasks) or 'none'}")
    if not tasks:
        return
    chosen = {name: frame[frame["task"].isin(tasks)] for name, frame in frames.items()}
    print(f"n = {[len(frame[frame['way'] == DENSE]) for frame in chosen.values()]} of these tasks")
    for ways in ((LATE_ENTRY, BARE), (EARLY_EXIT, FROZEN)):
        columns = [(name, way) for name, frame in chosen.items() for way in ways if (frame["way"] == way).any()]
        print(f"\n| k | {' | '.join(f'{name}: {way}' for name, way in columns)} |\n| ---: |{' ---: |' * len(columns)}")
        print(f"| dense | {' | '.join(cell(chosen[name], DENSE, -1, interval=True) for name, _ in columns)} |")
        for k in range(17):
            print(f"| {k} | {' | '.join(cell(chosen[name], way, k, interval=True) for name, way in columns)} |")


def scan_of(out: Path, loaded: LoadedModel, by_prompt: pd.DataFrame) -> VisionScan:
    return VisionScan(loaded.info, "", by_prompt, FORM, **json.loads((out / "about.json").read_text("utf-8")))


def conditions(out: Path, n: int) -> None:
    """Record and probe the drawings that were scanned, and print the curves and what the conditions tell."""
    loaded, frame = load_model(), opened(out, ("scan",))
    scanned = set(frame["id"])
    prompts = PromptSet(prompt for prompt in drawn(n) if str(prompt.id) in scanned)
    recording = record(loaded, prompts, batch_size=32, full=False, attention=True)
    probe = probe_answers(loaded, prompts, batch_size=32)
    print(f"\n{probe!r}\n{probe.parts}\nleft out: {json.dumps(probe.left_out, indent=1)}")
    table: Any = redundancies(recording, probe)
    print(markdown(table.drop(columns=[name for name in table if name.endswith(("_low", "_high"))]), ".3f"))
    for domain in (None, *DOMAINS):
        bands = skip_bands(recording, epsilon=0.05, delta=0.1, eta=0.1, tau=0.05, domain=domain)
        found = conditions_against_damage(recording, scan_of(out, loaded, frame), probe, bands=bands, domain=domain)
        print(f"\n{domain or 'all'}:", *found.sentences, sep="\n- ", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "times", "conditions", "tables"))
    parser.add_argument("out", type=Path, nargs="+", help="folders of results")
    parser.add_argument("--model", default="pocket-vl")
    parser.add_argument("--n", type=int, default=500, help="drawings a domain")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tasks", nargs="+", default=(), help="of the drawings, those of these tasks alone")
    asked = parser.parse_args()
    if asked.what == "run":
        run(asked.out[0], asked.model, asked.n, asked.only, asked.tasks)
    elif asked.what == "times":
        times(asked.out[0])
    elif asked.what == "conditions":
        conditions(asked.out[0], asked.n)
    else:
        scan_table(asked.out[0])
        front_table(asked.out[0], load_model())
        if len(asked.out) == 3:
            deepstack_table(dict(zip(DEEPSTACK, asked.out, strict=True)))


if __name__ == "__main__":
    main()

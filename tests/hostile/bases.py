"""Small whole files of every kind, made without a model; the corpus is made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlm_analysis import (
    AnswerProbe,
    Comparison,
    Contest,
    Cost,
    Drop,
    DropPart,
    Edit,
    Entry,
    Evaluation,
    Ledger,
    Narrow,
    PruneMask,
    Recording,
    Tower,
    Vision,
    VisionScan,
    WidthScores,
    save_answer_probe,
    save_comparison,
    save_contest,
    save_cost,
    save_edit,
    save_evaluation,
    save_ledger,
    save_mask,
    save_recording,
    save_scan,
    save_width_scores,
)
from vlm_analysis.edits.files import edit_content
from vlm_analysis.evaluation.evaluation import FORM as EVALUATION, evaluation_content
from vlm_analysis.evaluation.scan import DENSE, MEANS, ways_of
from vlm_analysis.export.probe.value import FirstToken, Probe, ProbePrompt, probe_text
from vlm_analysis.export.serving.rules import Architecture, served_by, serving_json
from vlm_analysis.model_info import LayerWidth, ModelInfo, TowerInfo
from vlm_analysis.recording.maps import TokenMap, write_map
from vlm_analysis.recording.measures import MEASURES, empty_rows
from vlm_analysis.recording.recording import Activations
from vlm_analysis.recovery.ledger import Row
from vlm_analysis.selection.compared.comparison import ways_frame
from vlm_analysis.selection.strategies.many import Way

N_LAYERS = 4
MODEL = ModelInfo(
    "toy",
    "f" * 64,
    N_LAYERS,
    protected={0: "first"},
    locked={3: "last"},
    layer_parameters=(10, 20, 20, 10),
    n_parameters=90,
)
WITH_TOWER = replace(
    MODEL,
    tower=TowerInfo(3, (5, 5, 5), protected={0: "first"}, locked={2: "read"}, unread=(2,)),
    widths=(LayerWidth(3, 2, 2, 2),) * N_LAYERS,
)
KINDS = Edit(
    N_LAYERS,
    (
        Tower(3, (1,)),
        Drop((1,)),
        DropPart((2,), ()),
        Narrow({0: [0, 2]}, {0: [1]}),
        Vision(absent=(3,), frozen=(0,)),
    ),
    name="mine",
    notes="n",
    model=WITH_TOWER,
    provenance={"made": "by hand"},
)
KEYS = tuple(f"{number:032x}" for number in range(4))
DOMAINS = ("math", "math", "general", "general")


def recording() -> Recording:
    rng = np.random.default_rng(0)
    rows = empty_rows(len(KEYS), N_LAYERS)
    for name, measure in MEASURES.items():
        rows[name] = rng.integers(1, 9, rows[name].shape) if measure.kind == "<i8" else rng.random(rows[name].shape)
    rows["key"], rows["nonfinite"] = [key.encode() for key in KEYS], 0
    activations = {
        name: Activations(rng.normal(size=(2, N_LAYERS, 6)), rng.uniform(1, 2, N_LAYERS), 2)
        for name in dict.fromkeys(DOMAINS)
    }
    ids = tuple(f"prompt-{number}" for number in range(len(KEYS)))
    return Recording(MODEL, "p" * 64, ids, DOMAINS, rows, {"batch_size": 1}, activations)


def with_maps(folder: Path) -> Recording:
    """Return a recording with token maps, which lie in a folder."""
    for key in KEYS:
        write_map(folder / "unfinished", key, token_map())
    return replace(recording(), maps=folder / "unfinished")


def token_map() -> TokenMap:
    cosine = np.full((N_LAYERS, 6), 0.5, np.float16)
    return TokenMap(cosine, np.array([0, 0, 0, 0, 1, 2], np.int8), tuple("abcdef"), ((0, 2, 2),))


def evaluation(dropped: tuple[int, ...] = ()) -> Evaluation:
    frame = pd.DataFrame(
        {
            "id": [f"prompt-{number}" for number in range(len(KEYS))],
            "domain": DOMAINS,
            "exact_match": [True, True, False, not dropped],
            "answer_nll": [0.5, 0.25, 1.5, 0.75],
            "token_agreement": 1.0,
            "kl_to_dense": 0.0,
            "answer": "a",
            "answer_source": "given",
            "answer_ids": [[1, 2]] * len(KEYS),
        }
    )
    return Evaluation(PruneMask(N_LAYERS, dropped, name="mine", model=MODEL), MODEL, "p" * 64, frame)


def cost() -> Cost:
    rounds = np.array([[100.0, 120, 110], [80.0, 90, 85]])
    return Cost(
        edit=PruneMask(N_LAYERS, (1,)),
        model=MODEL,
        device="cpu",
        threads=2,
        n_prompts=3,
        prompt_tokens=12.5,
        new_tokens=8,
        n_parameters=(90, 70),
        n_bytes=(360, 280),
        prefill_ms=rounds,
        tokens_per_s=1000 / rounds,
        layer_shares=np.array([[0.1, 0.2, 0.2, 0.1], [0.2, 0.2, 0.2, 0.2]]),
    )


def tower_cost() -> Cost:
    """Return a cost of an edit of every kind, with the layers of the vision encoder counted and timed."""
    flops = {"prefill_flops": (9e6, 7e6), "encoder_flops": (4e6, 3e6), "cache_bytes": (96, 64)}
    return replace(cost(), edit=KINDS, model=WITH_TOWER, encoder_shares=np.array([0.1, 0.1, 0.0]), **flops)


def scan() -> VisionScan:
    rows = [
        {"way": way, "layer": layer, "id": f"prompt-{number}", "domain": domain, **dict.fromkeys(MEANS, 0.5)}
        for way, layer in [(DENSE, -1), *ways_of(N_LAYERS)]
        for number, domain in enumerate(DOMAINS)
    ]
    counts = {"n_vision": 6.0, "n_text": 4.0, "attention_size": 3, "kv_parameters": 2}
    return VisionScan(MODEL, "p" * 64, pd.DataFrame(rows).assign(exact_match=True), "sliced", **counts)  # type: ignore[arg-type]


def answer_probe() -> AnswerProbe:
    shape = (2, N_LAYERS, 2, len(KEYS))
    index = pd.MultiIndex.from_tuples([("math", ""), ("general", "")], names=["domain", "task"])
    parts = pd.DataFrame({"n_prompts": 2, "n_answers": 2, "most_frequent": 0.5}, index=index)
    ids = tuple(f"prompt-{number}" for number in range(len(KEYS)))
    groups = tuple(map(str, range(len(KEYS))))
    return AnswerProbe(
        MODEL, "p" * 64, ids, DOMAINS, ("",) * len(KEYS), groups, np.ones(shape), np.full(shape, 0.5), parts
    )


def comparison() -> Comparison:
    masks = tuple(PruneMask(N_LAYERS, (layer,)) for layer in (1, 2))
    ways = [Way("one", "one", "first-k", None, 1, 0, mask) for mask in masks]
    scores = {name: np.full((2, len(KEYS)), 0.5) for name in ("answer_nll", "token_agreement", "kl_to_dense")}
    scores["exact_match"] = np.ones((2, len(KEYS)))
    return Comparison(evaluation(), masks, scores, ways_frame(ways, masks), "c" * 64, 0, {"two": "no reason"})


def story() -> dict[str, Any]:
    """Return the content of a story as version 0.1 wrote it, of `recording()`."""
    mask = PruneMask(N_LAYERS, (1,), name="mine", model=MODEL)
    curve = [[method, domain, 1, 0.5, 0.25, 0.75] for method in ("one", "random") for domain in dict.fromkeys(DOMAINS)]
    return {
        "schema_version": 1,
        "kind": "strata-story",
        "masks": {"one": edit_content(mask)},
        "curve": {"columns": [], "index": [], "data": curve},
        "examples": {"columns": [], "index": [], "data": [["math", "?", "a", "b"]]},
        "dense": EVALUATION.text(evaluation_content(evaluation())),
        "pruned": EVALUATION.text(evaluation_content(evaluation((1,)))),
    }


def mask_file(folder: Path) -> Path:
    return save_mask(
        PruneMask(N_LAYERS, (1, 2), name="mine", notes="n", model=MODEL, provenance={"made": "by hand"}),
        folder / "it.json",
    )


def edit_file(folder: Path) -> Path:
    return save_edit(KINDS, folder / "it.json")


def tower_cost_file(folder: Path) -> Path:
    return save_cost(tower_cost(), folder / "it.json")


def tower_recording_file(folder: Path) -> Path:
    rows = empty_rows(len(KEYS), N_LAYERS, 3)
    plain = recording()
    for name in plain.rows.dtype.names or ():
        if name in (rows.dtype.names or ()) and name != "tower_cosine":
            rows[name] = plain.rows[name]
    rows["tower_cosine"] = 0.5
    return save_recording(replace(plain, model=WITH_TOWER, rows=rows), folder / "it.npz")


def evaluation_file(folder: Path) -> Path:
    return save_evaluation(evaluation((1,)), folder / "it.json")


def ledger() -> Ledger:
    return Ledger(
        (
            Row("", True, replace(evaluation(), edit=Edit(N_LAYERS))),
            Row("", False, evaluation((1,))),
            Row("ridge", False, evaluation((1, 2)), 1.5, 280, 16, "n"),
            Row("small", True, replace(evaluation(), edit=Edit(N_LAYERS)), None),
        ),
        "c" * 64,
        4,
    )


def ledger_file(folder: Path) -> Path:
    return save_ledger(ledger(), folder / "it.json")


def contest_file(folder: Path) -> Path:
    entries = (
        Entry("depth", "first of a rank", evaluation((1,)), chosen_score=0.5, tried=3, speedup=(1.2, 1.1, 1.3)),
        Entry("mix", "greedy", evaluation((1, 2)), chosen_score=None),
        Entry("depth", "first of a rank", evaluation((1,)), "small", note="n"),
    )
    told: dict[str, Any] = {
        "missing": {"vision": "why."},
        "recovery": {"small": {"seed": 0}},
        "timed": "cpu",
        "stopped": "s.",
    }
    dense = replace(evaluation(), edit=Edit(N_LAYERS))
    return save_contest(Contest(0.3, "time", dense, entries, "c" * 64, 4, 1, **told), folder / "it.json")


def cost_file(folder: Path) -> Path:
    return save_cost(cost(), folder / "it.json")


def scan_file(folder: Path) -> Path:
    return save_scan(scan(), folder / "it.npz")


def width_scores() -> WidthScores:
    widths = (
        LayerWidth(3, 2, 2, 2),
        LayerWidth(0, 2, 0, 2, "it routes tokens to experts"),
        *[LayerWidth(3, 2, 2, 2)] * 2,
    )
    rng = np.random.default_rng(0)
    units = ([rng.random((4, getattr(width, unit))) for width in widths] for unit in ("neurons", "kv_groups"))
    neurons, groups = map(tuple, units)
    by_layer = {"cmds": rng.random(N_LAYERS), "sens": rng.random(N_LAYERS)}
    told: dict[str, Any] = {
        "seed": 1,
        "answers": (2, 1, 1),
        "tokens": (30, 12),
        "set_aside": {"prompt-9": "it is too long"},
    }
    return WidthScores(replace(MODEL, widths=widths), "p" * 64, neurons, groups, **by_layer, **told)


def width_file(folder: Path) -> Path:
    return save_width_scores(width_scores(), folder / "it.npz")


def answer_probe_file(folder: Path) -> Path:
    return save_answer_probe(answer_probe(), folder / "it.npz")


def probe_file(folder: Path) -> Path:
    prompt = ProbePrompt("1", "how many?", ("a.png",), "four", FirstToken("four", -0.5), {"layers": "five"})
    path = folder / "it.json"
    path.write_text(probe_text(Probe((prompt,), 24, "assistant", {"deepstack": "none"})), "utf-8")
    return path


def serving_file(folder: Path) -> Path:
    told = served_by(PruneMask(N_LAYERS, (1,)), Architecture("LlavaForConditionalGeneration"))
    path = folder / "it.json"
    path.write_text(serving_json(told[:1]), "utf-8")
    return path


def recording_file(folder: Path) -> Path:
    return save_recording(recording(), folder / "it.npz")


def recording_with_maps_file(folder: Path) -> Path:
    return save_recording(with_maps(folder), folder / "it.npz")


def comparison_file(folder: Path) -> Path:
    return save_comparison(comparison(), folder / "it.npz")

"""What is left of the answers when MLP neurons and attention groups go: shares of width by ways to choose, made cell by cell.

    python -m benchmarks.width --out FOLDER                                       # the bundled model, on fresh drawings of both domains
    python -m benchmarks.width --out FOLDER --model M --fit FIT --report REPORT   # another model folder, on prompt packs of its own
    python -m benchmarks.width --out FOLDER --recover                             # and once more after the same fine-tuning
    python -m benchmarks.width --out FOLDER --table                               # only the table of what is there

Units are scored on drawings of their own (or the packs of --fit) and reported on others. "uniform" and "global" are µCRASP with all our
defaults; the other ways are global and leave one thing out, or rank by the norm of the weights with no layer weighed ("magnitude"). A cell
is written when it is measured, and one that is there is not measured again. --recover tunes each edit that lost something with the settings
of "small", on the prompts that units were scored on; ways that make the same edit share one tuning. How far the fast scores agree with the
exact ones is given as rank correlations. Findings on the bundled model say nothing about larger ones.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.recovery import drawn
from vlm_analysis import (
    Evaluation,
    LoadedModel,
    PromptSet,
    WidthScores,
    evaluate,
    finetune,
    load_model,
    make_narrow,
    open_prompts,
    open_width_scores,
    save_width_scores,
    score_width,
)
from vlm_analysis.evaluation.evaluation import retention_bands
from vlm_analysis.evaluation.run.evaluate import batch_for, evaluate_prepared
from vlm_analysis.evaluation.run.prepared import prepare
from vlm_analysis.files import write_atomically
from vlm_analysis.selection.width.scores import PIVOT, TAYLOR, UNITS

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
WAYS: dict[str, dict[str, Any]] = {
    "uniform": {"mode": "uniform"},
    "global": {},
    "no pivot": {"pivots": "none"},
    "no CMDS": {"beta": 0.0},
    "random pivots": {"pivots": "random"},
    "magnitude": {"by": "magnitude", "alpha": 0.0, "beta": 0.0},
}
LOST = 5e-4  # nats of KL to the dense model: an edit below has lost nothing that a tuning could give back
FIT = 60  # drawings of each domain to score on
SEED = 0
METRICS = ("exact_match", "answer_nll", "kl_to_dense")


def prompts_of(asked: argparse.Namespace, what: str) -> PromptSet:
    """Return the prompts to score on ("fit") or to report on: the packs that are named, else drawings."""
    packs = getattr(asked, what)
    if not packs:
        return drawn(f"width {what}", FIT if what == "fit" else asked.n)
    found = [open_prompts(pack) for pack in packs]
    return sum(found[1:], found[0])


def scored(loaded: LoadedModel, asked: argparse.Namespace, *, fast: bool) -> WidthScores:
    """Return the scores, kept beside the cells with what they took."""
    path = asked.out / f"{'fast' if fast else 'exact'}.npz"
    if not path.exists():
        clock = time.process_time()
        scores = score_width(loaded, prompts_of(asked, "fit"), fast=fast, seed=SEED)
        _write(path.with_suffix(".json"), {"processor_s": time.process_time() - clock, "n": scores.n_answers})
        save_width_scores(scores, path)
    return open_width_scores(path)


def cells(asked: argparse.Namespace) -> Iterator[tuple[float, str, Path]]:
    for share in SHARES:
        for way in WAYS:
            yield share, way, asked.out / f"{share:.0%}-{way.replace(' ', '-')}.json"


def tuned(path: Path) -> Path:
    return path.with_name(f"{path.stem}-tuned.json")


def recover(asked: argparse.Namespace) -> None:
    """Tune the edit of each cell that lost something, and measure it again."""
    loaded = load_model(asked.model)
    scores = scored(loaded, asked, fast=False)
    dense = evaluate(loaded, prompts_of(asked, "report"))
    work, batch = prepare(loaded, prompts_of(asked, "report"), dense), batch_for(loaded)
    known: dict[str, Path] = {}
    for share, way, path in cells(asked):
        edit = make_narrow(scores, share, **WAYS[way])
        first = known.setdefault(edit.key, tuned(path))
        if tuned(path).exists() or np.mean(_read(path)["kl_to_dense"]) < LOST:
            continue
        if not first.exists():
            better = finetune(loaded, edit, prompts_of(asked, "fit"), "small", seed=SEED)
            evaluation = evaluate_prepared(work, better, dense.dense_log_probs, batch_size=batch)
            _write(first, told(evaluation) | {"edit": better.words()})
        _write(tuned(path), _read(first))
        print(tuned(path).stem, flush=True)


def measure(asked: argparse.Namespace) -> None:
    """Measure the cells that are missing."""
    loaded = load_model(asked.model)
    scores = scored(loaded, asked, fast=False)
    scored(loaded, asked, fast=True)
    dense = evaluate(loaded, prompts_of(asked, "report"))
    work, batch = prepare(loaded, prompts_of(asked, "report"), dense), batch_for(loaded)
    _write(asked.out / "dense.json", told(dense) | {"finding": scores.finding()})
    for share, way, path in cells(asked):
        if not path.exists():
            edit = make_narrow(scores, share, **WAYS[way])
            evaluation = evaluate_prepared(work, edit, dense.dense_log_probs, batch_size=batch)
            _write(path, told(evaluation) | {"edit": edit.words()})
            print(path.stem, edit.words(), flush=True)


def told(evaluation: Evaluation) -> dict[str, Any]:
    """Return the scores of each prompt, with its domain."""
    frame = evaluation.by_prompt
    names = [name for name in METRICS if name in frame]
    return {"domain": list(frame["domain"]), **{name: frame[name].astype(float).tolist() for name in names}}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda part: part.write_text(json.dumps(content), "utf-8"))


def table(asked: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of retention (90 % intervals over prompts), KL and NLL by domain, share and way."""
    base = pd.DataFrame({name: values for name, values in _read(asked.out / "dense.json").items() if name != "finding"})
    yield f"{_read(asked.out / 'dense.json')['finding']}\n"
    yield "| domain | share | way | answers kept, % | KL, nats | NLL, nats |"
    yield "| --- | ---: | --- | ---: | ---: | ---: |"
    for domain, dense in base.groupby("domain", sort=False):
        told_of = f"| {domain}, n = {len(dense)} | 0 | dense | {100 * dense['exact_match'].mean():.0f} % right | 0 |"
        yield f"{told_of} {dense['answer_nll'].mean():.3f} |"
        for share, way, path in cells(asked):
            for name, file in ((way, path), (f"{way} + tuned", tuned(path))):
                if file.exists():
                    yield f"| {domain} | {share:.0%} | {name} | {row(_read(file), str(domain), dense)} |"


def row(content: dict[str, Any], domain: str, dense: pd.DataFrame) -> str:
    """Return what one edit keeps of a domain's answers, with its mean KL and NLL."""
    edit = pd.DataFrame({name: content[name] for name in ("domain", *METRICS)})
    here = edit[edit["domain"] == domain]
    means = (f"{here[name].mean():.3f}" for name in ("kl_to_dense", "answer_nll"))
    return f"{kept(here, dense)} | {' | '.join(means)}"


def kept(edit: pd.DataFrame, dense: pd.DataFrame) -> str:
    """Return the retention with a 90 % interval over prompts."""
    low, high = retention_bands(
        edit["exact_match"].to_numpy()[None], dense["exact_match"].to_numpy(), "exact_match", np.arange(len(dense))
    )
    value = edit["exact_match"].sum() / dense["exact_match"].sum()
    return f"{100 * value:.0f} ({100 * low[0]:.0f}–{100 * high[0]:.0f})"


def agreement(asked: argparse.Namespace) -> Iterator[str]:
    """Yield how far the fast scores rank as the exact ones do, over all units of a kind."""
    exact, fast = (open_width_scores(asked.out / f"{name}.npz") for name in ("exact", "fast"))
    took = [_read(asked.out / f"{name}.json")["processor_s"] for name in ("exact", "fast")]
    yield f"Exact took {took[0]:.0f} s of processor time for {exact.n_answers} prompts, fast {took[1]:.0f} s."
    for unit in UNITS:
        for value in (TAYLOR, PIVOT):
            one, two = (pd.Series(np.concatenate(scores.values(value, unit))).rank() for scores in (exact, fast))
            yield f"{unit}, {value}: Spearman's rank correlation of fast and exact {one.corr(two):.3f}"


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="pocket-vl", help="a model folder")
    parser.add_argument("--fit", action="append", help="a pack to score on; may be repeated")
    parser.add_argument("--report", action="append", help="a pack to report on; may be repeated")
    parser.add_argument("--n", type=int, default=120, help="drawings of each domain to report on")
    parser.add_argument("--recover", action="store_true", help="tune the edits that lost something")
    parser.add_argument("--table", action="store_true", help="only print what is measured")
    asked = parser.parse_args()
    if not asked.table:
        measure(asked)
        if asked.recover:
            recover(asked)
    print(*table(asked), "", *agreement(asked), sep="\n")


if __name__ == "__main__":
    main()

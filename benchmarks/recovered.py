"""Tables of what `benchmarks.recovery` has measured so far, and what is missing; it takes seconds and needs no model.

    python -m benchmarks.recovered FOLDER     # FOLDER/N-HARD/SEED/*.json

Seeds are pooled: a ranking's mask is another one for each seed, and its answers stand beside the dense model's to the same drawings. Rows
that one seed alone has measured are not shown but named, unless --least-seeds asks for them. Intervals and verdicts are those of the
package.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlm_analysis.evaluation.evaluation import retention_bands
from vlm_analysis.selection.compared.verdicts import Answers, _with_verdicts
from vlm_analysis.selection.strategies.many import RANDOM
from vlm_analysis.words import counted

HOWS = ("cut", "ridge", "subspace", "scale", "tuned", "ridge + tuned")
NAME = re.compile(r"(?P<method>.*?)(, arXiv:[\d.]+)?, (?P<budget>\d+) layers?(, draw (?P<draw>\d+))?")
Key = tuple[str, int]  # a method, and the draw of a random one


@dataclass
class Measured:
    """Exact matches of one set of drawings: by seed those of the dense model, and by seed, budget, method and how those of a mask.

    Each is a (n_prompts,) array; `domains` are those of a seed's prompts. Rows of fewer than `least` seeds are not shown.
    """

    least: int

    dense: dict[int, np.ndarray] = field(default_factory=dict)
    domains: dict[int, np.ndarray] = field(default_factory=dict)
    masks: dict[tuple[int, int, Key, str], np.ndarray] = field(default_factory=dict)

    def seeds(self, budget: int, key: Key, how: str) -> list[int]:
        return sorted(seed for seed in self.dense if (seed, budget, key, how) in self.masks)

    def pooled(self, budget: int, keys: Sequence[Key], how: str, seeds: Iterable[int], domain: str) -> np.ndarray:
        """Return (n_keys, n_prompts) exact matches on a domain's prompts of the seeds."""
        parts = [
            np.stack([self.masks[seed, budget, key, how] for key in keys])[:, self.domains[seed] == domain]
            for seed in seeds
        ]
        return np.concatenate(parts, axis=1)

    def base(self, seeds: Iterable[int], domain: str) -> np.ndarray:
        return np.concatenate([self.dense[seed][self.domains[seed] == domain] for seed in seeds])


def read(folder: Path, least: int) -> tuple[dict[str, Measured], list[float]]:
    """Return what was measured by the set of drawings, and the processor seconds of each recovery by training."""
    sets: dict[str, Measured] = {}
    seconds: list[float] = []
    for path in sorted(folder.glob("*/*/*.json")):
        content = json.loads(path.read_text("utf-8"))
        seed = int(content["seed"])
        for how, cell in content["cells"].items():
            seconds += [cell["processor_s"]] if "tuned" in how and "scores" in cell else []
            for name, scores in cell.get("scores", {}).items():
                measured, right = sets.setdefault(name, Measured(least)), np.array(scores["exact_match"], float)
                if not content["dropped"]:
                    if how == "cut":
                        measured.dense[seed], measured.domains[seed] = right, np.array(scores["domain"])
                    continue
                for match in filter(None, map(NAME.fullmatch, content["names"])):
                    key = (match["method"], int(match["draw"] or 0))
                    measured.masks[seed, int(match["budget"]), key, how] = right
    return sets, seconds


def rows_of(measured: Measured) -> Iterator[tuple[int, tuple[Key, ...], list[int]]]:
    """Yield budget, rankings and seeds of each row, the heavy first; rankings with the same masks in all seeds share one."""
    known = {(budget, key) for _, budget, key, how in measured.masks if how != "cut"}
    for budget in sorted({budget for budget, _ in known}, reverse=True):
        alike: dict[tuple[Any, ...], list[Key]] = {}
        for key in sorted(key for one, key in known if one == budget):
            seeds = measured.seeds(budget, key, HOWS[-1])
            same = tuple((seed, measured.masks[seed, budget, key, "ridge"].tobytes()) for seed in seeds)
            alike.setdefault(same, []).append(key)
        for same, keys in alike.items():
            yield budget, tuple(keys), [seed for seed, _ in same]


def title(keys: Sequence[Key]) -> str:
    return ", ".join(dict.fromkeys(method for method, _ in keys))


def table(measured: Measured) -> Iterator[str]:
    """Yield the lines of retention by mask and how, with 90 % intervals."""
    yield f"| layers | ranking | domain | n (seeds) | {' | '.join(HOWS)} |"
    yield f"| ---: | --- | --- | ---: |{' ---: |' * len(HOWS)}"
    for budget, keys, seeds in rows_of(measured):
        if len(seeds) < measured.least:
            continue
        for domain in dict.fromkeys(measured.domains[seeds[0]]):
            base = measured.base(seeds, domain)
            kept = np.concatenate([measured.pooled(budget, keys[:1], how, seeds, domain) for how in HOWS])
            low, high = retention_bands(kept, base, "exact_match", np.arange(len(base)))
            cells = [
                f"{100 * value:.0f} ({100 * least:.0f}–{100 * most:.0f})"
                for value, least, most in zip(kept.sum(axis=1) / base.sum(), low, high, strict=True)
            ]
            yield f"| {budget} | {title(keys)} | {domain} | {len(base)} ({len(seeds)}) | {' | '.join(cells)} |"


def bands(measured: Measured) -> Iterator[str]:
    """Yield for each budget the range of the random draws as they are cut, over seeds and draws."""
    for budget in sorted({one for _, one, _, _ in measured.masks}, reverse=True):
        for domain in dict.fromkeys(measured.domains[min(measured.domains)]):
            found = [
                float(right[rows].sum() / measured.dense[seed][rows].sum())
                for (seed, one, (method, _), how), right in measured.masks.items()
                if (one, method, how) == (budget, RANDOM, "cut")
                for rows in [measured.domains[seed] == domain]
            ]
            if found:
                ends, n = f"{100 * min(found):.0f} to {100 * max(found):.0f} %", counted(len(found), "draw")
                yield f"{counted(budget, 'layer')}, {domain}: {ends} ({n})"


def given_back(measured: Measured) -> Iterator[str]:
    """Yield how much each way adds to what is kept as it is cut, in points of the dense model's answers: the mean over all rows."""
    yield f"| layers | domain | masks | n (seeds) | {' | '.join(HOWS[1:])} |"
    yield f"| ---: | --- | ---: | ---: |{' ---: |' * (len(HOWS) - 1)}"
    for budget, keys, seeds in shared_rows(measured):
        for domain in dict.fromkeys(measured.domains[seeds[0]]):
            cut, base = measured.pooled(budget, keys, "cut", seeds, domain), measured.base(seeds, domain)
            cells = []
            for how in HOWS[1:]:
                more = measured.pooled(budget, keys, how, seeds, domain) - cut
                gain, low, high, _ = Answers(cut, base, np.arange(len(base))).paired(more.mean(axis=0))
                ends = (
                    f" ({100 * low:+.1f} to {100 * high:+.1f})" if np.isfinite(low) else ""
                )  # none where no answer changes
                cells.append(f"{100 * gain:+.1f}{ends}")
            yield f"| {budget} | {domain} | {len(keys)} | {len(base)} ({len(seeds)}) | {' | '.join(cells)} |"


def shared_rows(measured: Measured) -> Iterator[tuple[int, list[Key], list[int]]]:
    """Yield each budget with one ranking for each row, and the seeds that all of them have."""
    rows = list(rows_of(measured))
    for budget in dict.fromkeys(one for one, _, _ in rows):
        here = [(keys[0], seeds) for one, keys, seeds in rows if one == budget and len(seeds) >= measured.least]
        seeds = sorted(set.intersection(*(set(one) for _, one in here))) if here else []
        if len(here) > 1 and len(seeds) >= measured.least:
            yield budget, [key for key, _ in here], seeds


def regimes(measured: Measured) -> pd.DataFrame:
    """Return the verdicts by how, budget and domain: the rule of `vlm_analysis.regimes` on pooled seeds, all tests corrected together."""
    found = []
    for budget, keys, seeds in shared_rows(measured):
        single = np.array([place for place, (method, _) in enumerate(keys) if method != RANDOM], int)
        drawn = np.array([place for place, (method, _) in enumerate(keys) if method == RANDOM], int)
        for domain in dict.fromkeys(measured.domains[seeds[0]]):
            base = measured.base(seeds, domain)
            for how in HOWS:
                answers = Answers(measured.pooled(budget, keys, how, seeds, domain), base, np.arange(len(base)))
                n_masks, spread, noise, p = answers.spread(len(keys), single, drawn)
                about = {"how": how, "domain": domain, "budget": budget, "n_masks": n_masks}
                tested = {"groups_answered": answers.counts[3], "p_spread": p, "p_gain": np.nan, "gain": np.nan}
                found.append({**about, "spread": spread, "noise": noise, **tested})
    return _with_verdicts(pd.DataFrame(found)) if found else pd.DataFrame()


def verdict_lines(frame: pd.DataFrame) -> Iterator[str]:
    yield f"| layers | domain | {' | '.join(HOWS)} |"
    yield f"| ---: | --- |{' --- |' * len(HOWS)}"
    if frame.empty:
        return
    for (budget, domain), rows in frame.groupby(["budget", "domain"], sort=False):
        cells = [
            f"{row['regime']} ({100 * row['spread']:.1f} over {100 * row['noise']:.1f})"
            for how in HOWS
            for row in rows[rows["how"] == how].to_dict("records")
        ]
        yield f"| {budget} | {domain} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--least-seeds", type=int, default=2, help="that have measured a row, or it is not shown")
    asked = parser.parse_args()
    sets, seconds = read(asked.folder, asked.least_seeds)
    for name, measured in sets.items():
        print(f"\n**{name.capitalize()} drawings**\n", *table(measured), sep="\n")
        print(
            "\nGiven back, in points of the dense model's answers (90 % intervals, paired):\n",
            *given_back(measured),
            sep="\n",
        )
        print("\nRandom masks as they are cut:", *bands(measured), sep="\n")
        print("\nRegimes (spread over noise, points):\n", *verdict_lines(regimes(measured)), sep="\n")
        one = [
            f"{counted(budget, 'layer')}, {title(keys)}"
            for budget, keys, seeds in rows_of(measured)
            if len(seeds) < measured.least
        ]
        print("\nMeasured with fewer seeds, not shown:", "; ".join(one) or "none")
    if seconds:
        print(f"\nA tuning took {min(seconds):.0f} to {max(seconds):.0f} s of processor time.")


if __name__ == "__main__":
    main()

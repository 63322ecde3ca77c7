"""How often intervals hold the true value and verdicts are false, by seeded simulation: the tables of docs/statistics.md.

    python -m benchmarks.intervals            # prints the tables
    python -m benchmarks.intervals --write    # and puts them into docs/statistics.md

Each row of a table is a function of a generator and a number of runs; `tests/evaluation/test_coverage.py` runs a few hundred of each.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from vlm_analysis.evaluation.intervals import LEAST_GROUPS, holm, kept_bands, ratio_bands, share_bands, tailed_bands
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.recording.measures import empty_rows
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.certainty.ranks import RankStability, rank_stability
from vlm_analysis.selection.compared.verdicts import ALPHA, Answers

DOCS = Path(__file__).parents[1] / "docs" / "statistics.md"
BEGIN, END = "<!-- simulated, written by python -m benchmarks.intervals -->", "<!-- /simulated -->"
RUNS = 4000
MIXES = ((5, 1, 0.0), (10, 1, 0.0), (45, 1, 0.0), (100, 1, 0.0), (5, 10, 0.3), (24, 10, 0.1), (24, 10, 0.6))
"""Of right or wrong answers: groups, their prompts, and how these correlate."""

Simulate = Callable[[np.random.Generator, int], float]


@dataclass(frozen=True)
class Case:
    """What is simulated: its table, its words, what its result must lie between, and the function that gives it."""

    table: str
    words: str
    least: float
    most: float
    simulate: Simulate
    is_slow: bool = False


def chances(rng: np.random.Generator, mean: float, alike: float, shape: tuple[int, ...]) -> np.ndarray:
    """Return chances of this mean; prompts with one chance correlate by `alike` (0 to 1)."""
    if not alike or mean in (0, 1):
        return np.full(shape, mean)
    return rng.beta(mean * (1 / alike - 1), (1 - mean) * (1 / alike - 1), shape)


def covered(ends: np.ndarray, true: float) -> float:
    """Return the share of (2, n) intervals that hold the true value; those without ends are left out."""
    low, high = ends[:, ~np.isnan(ends).any(axis=0)]
    return float(np.mean((low <= true) & (true <= high)))


def mean_case(n_groups: int, size: int) -> Simulate:
    """Return the coverage of means of normal values, half of whose variance lies between groups."""

    def simulate(rng: np.random.Generator, runs: int) -> float:
        values = rng.normal(0.8, 0.1, (runs, n_groups, 1)) + rng.normal(0, 0.1, (runs, n_groups, size))
        numbers = np.repeat(np.arange(n_groups), size)
        return covered(ratio_bands(values.reshape(runs, -1), np.ones(len(numbers)), numbers), 0.8)

    return simulate


def share_case(n_groups: int, size: int, alike: float, true: float) -> Simulate:
    """Return the coverage of a share of right answers; prompts of a group correlate by `alike`."""

    def simulate(rng: np.random.Generator, runs: int) -> float:
        hits = rng.random((runs, n_groups, size)) < chances(rng, true, alike, (runs, n_groups, 1))
        hits = hits.reshape(runs, -1)
        return covered(share_bands(hits, np.ones_like(hits), np.repeat(np.arange(n_groups), size)), true)

    return simulate


def kept_case(n_groups: int, size: int, alike: float, right: float, lost: float, won: float) -> Simulate:
    """Return the coverage of retention: `lost` of the dense model's right answers are lost, `won` of the others won."""
    true = 1 - lost + won * (1 - right) / right

    def simulate(rng: np.random.Generator, runs: int) -> float:
        shape = (runs, n_groups, size)
        base = rng.random(shape) < chances(rng, right, alike, (runs, n_groups, 1))
        stays, wins = (chances(rng, one, alike, (runs, n_groups, 1)) for one in (1 - lost, won))
        kept = rng.random(shape) < np.where(base, stays, wins)
        numbers = np.repeat(np.arange(n_groups), size)
        return covered(kept_bands(kept.reshape(runs, -1), base.reshape(runs, -1), numbers), true)

    return simulate


def tailed_case(n_groups: int, kind: str) -> Simulate:
    """Return the coverage of the mean of values with a long tail."""
    draws: dict[str, tuple[Callable[[np.random.Generator, tuple[int, int]], np.ndarray], float]] = {
        "log-normal, sigma 0.5": (lambda rng, shape: np.exp(rng.normal(0, 0.5, shape)), math.exp(0.125)),
        "log-normal, sigma 1": (lambda rng, shape: np.exp(rng.normal(0, 1, shape)), math.exp(0.5)),
        "gamma, shape 0.3": (lambda rng, shape: rng.gamma(0.3, 1, shape), 0.3),
        "70 % zeros": (lambda rng, shape: rng.exponential(1, shape) * (rng.random(shape) < 0.3), 0.3),
    }
    draw, true = draws[kind]

    def simulate(rng: np.random.Generator, runs: int) -> float:
        return covered(tailed_bands(draw(rng, (runs, n_groups)), np.arange(n_groups)), true)

    return simulate


def apart_case(n_prompts: int, n_layers: int) -> Simulate:
    """Return how often any two of equal layers are told apart."""

    def simulate(rng: np.random.Generator, runs: int) -> float:
        return float(np.mean([stability(rng.normal(0.7, 0.1, (n_prompts, n_layers))).apart.any() for _ in range(runs)]))

    return simulate


def power_case(gap: float) -> Simulate:
    """Return how often two layers are told apart by the number of prompts that is said to do, at the true gap and noise of 20 prompts."""

    def simulate(rng: np.random.Generator, runs: int) -> float:
        means = np.array([0.9, 0.5, 0.7 + gap, 0.3, 0.7, 0.9])
        noise = rng.normal(0, 0.1, (20, 6))
        noise = np.linalg.svd(noise - noise.mean(axis=0), full_matrices=False)[0] * 0.1 * math.sqrt(19)
        (pair,) = stability(means + noise, 1000).unsure(1)
        drawn = (rng.normal(means, 0.1, (int(pair.prompts), 6)) for _ in range(runs))
        return float(np.mean([stability(one).apart[2, 4] for one in drawn]))

    return simulate


def stability(cosines: np.ndarray, n_draws: int = 200) -> RankStability:
    """Return the stability of the ranking of layers by these cosines, (n_prompts, n_layers)."""
    n_prompts, n_layers = cosines.shape
    rows = empty_rows(n_prompts, n_layers)
    rows["cosine"], rows["token_counts"] = cosines[:, :, None], 1
    names = tuple(map(str, range(n_prompts)))
    recording = Recording(ModelInfo("made", "f" * 64, n_layers), "p" * 64, names, ("one",) * n_prompts, rows)
    return rank_stability(recording, "block-influence", n_draws=n_draws)


def verdict_case(n_groups: int, size: int) -> Simulate:
    """Return how often a table of regimes claims anything of masks that are equally good: 3 criteria, 4 budgets, one domain."""

    def simulate(rng: np.random.Generator, runs: int) -> float:
        return float(np.mean([_claims(rng, n_groups, size) for _ in range(runs)]))

    return simulate


def _claims(rng: np.random.Generator, n_groups: int, size: int) -> bool:
    chance = chances(rng, 0.7, 0.3, (n_groups, 1)) * np.ones((n_groups, size))
    kept = (rng.random((24, n_groups * size)) < chance.reshape(-1)).astype(float)
    numbers, p = np.repeat(np.arange(n_groups), size), []
    for first in range(0, 24, 6):
        answers = Answers(kept[first : first + 6], np.ones(n_groups * size), numbers)
        p += [answers.spread(3, np.arange(3), np.arange(0))[3], answers.gain(np.arange(3), np.arange(3, 6))[3]]
    return bool((holm(np.array(p)) <= ALPHA).any())


def cases() -> Iterator[Case]:
    """Yield all that is simulated."""
    for n_groups, size in ((LEAST_GROUPS, 1), (20, 1), (100, 1), (5, 10), (24, 10)):
        yield Case("Means of near-normal values", _units(n_groups, size), 0.87, 0.93, mean_case(n_groups, size))
    for (n_groups, size, alike), true in product(MIXES, (0.5, 0.9)):
        words = f"{_units(n_groups, size, alike)}; {true:.0%} are right"
        yield Case("Right or wrong", words, 0.88, 1.0, share_case(n_groups, size, alike, true))
    for (n_groups, size, alike), (right, lost, won) in product(
        MIXES, ((0.9, 0.05, 0.0), (0.6, 0.1, 0.3), (0.6, 0.4, 0.1))
    ):
        words = f"{_units(n_groups, size, alike)}; {right:.0%} are right, of these {lost:.0%} lost, of the others {won:.0%} won"
        yield Case("Lost and won", words, 0.88, 1.0, kept_case(n_groups, size, alike, right, lost, won))
    for n_groups in (20, 100):
        for kind in ("log-normal, sigma 0.5", "log-normal, sigma 1", "gamma, shape 0.3", "70 % zeros"):
            yield Case("KL and NLL", f"{_units(n_groups, 1)}; {kind}", 0.85, 1.0, tailed_case(n_groups, kind))
    for n_prompts, n_layers in ((5, 6), (5, 16), (20, 16), (100, 16)):
        words = f"{_units(n_prompts, 1)}; {n_layers - 2} equal layers"
        yield Case("Equal layers told apart", words, 0.0, 0.12, apart_case(n_prompts, n_layers), True)
    for gap in (0.04, 0.02):
        yield Case(
            "Layers told apart by as many prompts as would do",
            f"gap {gap / 0.1:g} of the noise",
            0.7,
            0.9,
            power_case(gap),
            True,
        )
    for n_groups, size in ((5, 1), (45, 1), (24, 10)):
        yield Case(
            "Tables of regimes with a false claim",
            _units(n_groups, size, 0.3),
            0.0,
            0.12,
            verdict_case(n_groups, size),
            True,
        )


def _units(n_groups: int, size: int, alike: float = 0.5) -> str:
    return f"{n_groups} prompts" if size == 1 else f"{n_groups} groups of {size}, correlation {alike:g}"


def runs_of(case: Case, runs: int) -> int:
    """Return how often a case is drawn: a quarter as often where it takes long."""
    return runs // 4 if case.is_slow else runs


def tables(runs: int = RUNS) -> str:
    """Return the tables as Markdown."""
    lines: list[str] = []
    last = ""
    for number, case in enumerate(cases()):
        found = case.simulate(np.random.default_rng(number), runs_of(case, runs))
        if case.table != last:
            lines += ["", f"| {case.table} | found | wanted |", "| --- | --- | --- |"]
            last = case.table
        lines.append(f"| {case.words} | {found:.1%} | {case.least:.0%} to {case.most:.0%} |")
        print(lines[-1], flush=True)
    return "\n".join(lines).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/statistics.md")
    parser.add_argument("--runs", type=int, default=RUNS, help="of each row; a quarter of the slow ones")
    arguments = parser.parse_args()
    found = tables(arguments.runs)
    if arguments.write:
        text = DOCS.read_text("utf-8")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        DOCS.write_text(f"{before}{BEGIN}\n{found}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()

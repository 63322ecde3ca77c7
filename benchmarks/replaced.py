"""One trained layer for a window of layers (LLM-Streamline), beside leaving out the same layers: a table on the bundled model.

    python -m benchmarks.replaced                          # one to four layers go, at the rates of the paper and at faster ones
    python -m benchmarks.replaced --epochs 60 --rates 1e-3

The window is the one that the streams around it choose, and the layer is trained on the packs `general` and `math`; reported are
`general-report` and `math-report`, on which nothing is chosen or learnt. Numbers are exact match in percent with 90 % intervals over
prompts. Findings on this model say nothing about larger ones.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from vlm_analysis import Edit, Evaluation, PruneMask, evaluate, load_model, open_prompts, replace_window
from vlm_analysis.evaluation.evaluation import score_intervals

LAST_SHARE = 0.25  # of the first rate, to which each falls, as from 2e-4 to 5e-5


def cells(evaluation: Evaluation) -> str:
    """Return the cells of general and math."""
    found = score_intervals(evaluation).query("metric == 'exact_match'").set_index("domain")
    told = (found.loc[domain, ["value", "low", "high"]].astype(float) * 100 for domain in ("general", "math"))
    return " | ".join(f"{value:.0f} ({low:.0f}–{high:.0f})" for value, low, high in told)


def table(asked: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the table as they are measured."""
    loaded = load_model()
    fit = open_prompts("general") + open_prompts("math")
    report = open_prompts("general-report") + open_prompts("math-report")
    dense = evaluate(loaded, report)
    yield "| layers that go | window | how | general | math | distance left, held-out prompts | best step | processor, s |"
    yield "| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |"
    yield f"| 0 |  | dense model | {cells(dense)} |  |  |  |"

    def row(n: int, window: tuple[int, ...], how: str, edit: Edit, rest: str) -> str:
        place = f"{window[0]} to {window[-1]}"
        return f"| {n} | {place} | {how} | {cells(evaluate(loaded, report, edit, reference=dense))} | {rest} |"

    for n in asked.n:
        for rate in asked.rates:
            begun = time.process_time()
            options = {"learning_rate": rate, "last_rate": LAST_SHARE * rate, "epochs": asked.epochs}
            edit = replace_window(loaded, fit, n, **options)
            took = time.process_time() - begun
            about = edit.provenance["replace"]
            window = tuple(about["window"])
            if rate == asked.rates[0]:
                yield row(n, window, "left out", PruneMask(loaded.n_layers, window[1:]), " |  | ")
            before, after = about["held_out_distance"]
            rest = f"{100 * after / before:.0f} % | {about['best_step']} of {about['steps']} | {took:.0f}"
            yield row(n, window, f"one layer, {rate:g}", edit, rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[1, 2, 3, 4], help="how many layers go")
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-4, 1e-3], help="first learning rates")
    parser.add_argument("--epochs", type=int, default=60, help="how often each prompt to train on is seen")
    for line in table(parser.parse_args()):
        print(line, flush=True)


if __name__ == "__main__":
    main()

"""Depth, width and mixes at equal parameters, with and without the same recovery, on the bundled model.

    python -m benchmarks.contest                  # 10, 20 and 30 % of the parameters; some three minutes
    python -m benchmarks.contest --time 20        # and one of a prefill's time here; some two minutes more

Edits are picked on half of the packs general and math, and measured on the other packs, which they were not picked on. Prints retention of
the dense model's exact matches with its 90 % interval, KL and NLL in nats over all prompts, and the sentence of each contest.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from vlm_analysis import Bench, Contest, open_prompts

SHARES = (0.1, 0.2, 0.3)
RECOVERED = ("small", "ridge")


def row(contest: Contest, share: str) -> None:
    """Print a row for each entry of a contest, and its sentence."""
    for entry, one in zip(contest.entries, contest.overall.to_dict("records"), strict=True):
        means = entry.evaluation.by_prompt[["kl_to_dense", "answer_nll"]].mean()
        times = "–" if entry.speedup is None else f"{entry.speedup[0]:.2f} ×"
        print(
            f"| {share} | {entry.title} | {entry.saved:.1%} | {times} | {one['retention']:.1%} ({one['low']:.0%} to {one['high']:.0%}) "
            f"| {means['kl_to_dense']:.3f} | {means['answer_nll']:.3f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", type=int, nargs="*", default=[], help="per cent of a prefill's time")
    times = parser.parse_args().time
    choose = open_prompts("general") + open_prompts("math")
    report = open_prompts("general-report") + open_prompts("math-report")
    said = []
    print(
        "| gone | kind | parameters gone | prefill | kept | KL | NLL |\n| --- | --- | ---: | ---: | --- | ---: | ---: |"
    )
    with tempfile.TemporaryDirectory() as home:
        from vlm_analysis.workbench.workspace import Workspace

        bench = Bench("pocket-vl", Workspace(Path(home)))
        for share in SHARES:
            contest = bench.open(bench.contest(choose, report, share, recover=RECOVERED))
            row(contest, f"{share:.0%} of the parameters")
            said.append(contest.verdict())
        for per_cent in times:
            contest = bench.open(bench.contest(choose, report, per_cent / 100, of="time"))
            row(contest, f"{per_cent} % of the time")
            said.append(contest.verdict())
    print("\n" + "\n\n".join(said))


if __name__ == "__main__":
    main()

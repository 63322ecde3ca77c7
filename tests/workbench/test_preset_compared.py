"""The preset compared by the Bench: its masks and nothing else, on the bundled model, recorded with tasks first."""

from __future__ import annotations

from dataclasses import replace

from vlm_analysis import READINGS, Bench, LoadedModel, PromptSet, regimes
from vlm_analysis.selection.compared.verdicts import FAMILY, family_of
from vlm_analysis.workbench.shelf import keep_recording
from vlm_analysis.workbench.workspace import Workspace


def test_the_preset_alone_is_compared_and_its_rankings_are_the_family(loaded: LoadedModel, few: PromptSet) -> None:
    asked = PromptSet(replace(prompt, task=f"task {place % 3}") for place, prompt in enumerate(few))
    bench = Bench(loaded, Workspace())
    old = bench.open(bench.record(asked))
    for item in bench.workspace.items("recordings"):
        bench.workspace.delete(item)
    keep_recording(bench.workspace, replace(old, pooled={}), "from before")
    comparison = bench.open(bench.compare(asked, n_draws=2, preset="domain-aware"))
    assert set(comparison.ways["strategy"]) == set(READINGS)
    assert comparison.left_out == {}
    assert sorted(set(comparison.ways["budget"])) == [1, 3, 5]
    assert set(family_of(comparison)) == set(FAMILY)
    assert set(regimes(comparison)["domain"]) == {"math", "general"}
    assert any(one.pooled for one in map(bench.open, bench.workspace.items("recordings")))

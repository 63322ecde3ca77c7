"""Pocket-VL Steps: it answers its pack, its card tells what these weights answer, and what it brings is that of Pocket-VL."""

from __future__ import annotations

import json
import re
from functools import cache

import pytest
from safetensors import safe_open

from vlm_analysis import PromptSet, evaluate, load_model, open_prompts
from vlm_analysis.assets import BUNDLED_MODELS, asset
from vlm_analysis.export.checkpoint import _source
from vlm_analysis.pocket.card import BARS, CURVE_FILE, MISSED_FILE, RUN_FILE
from vlm_analysis.pocket.tasks import DOMAINS, STEPS, TASKS
from vlm_analysis.selection.compared.answerwords import model_title

NAME = "pocket-vl-steps"
CARD = asset(NAME, "README.md").read_text("utf-8")
OWN = {"README.md", "config.json", "model.safetensors", CURVE_FILE, MISSED_FILE, RUN_FILE}


def shares() -> dict[str, tuple[float, int]]:
    """Return of each row of the card's tables the share of right answers and the number of drawings."""
    rows = re.findall(r"^\| ([\w-]+) \| \w+ \| ([\d.]+)% \| [\d.]+ \| (\d+) \|$", CARD, re.MULTILINE)
    rows += re.findall(r"^\| \*\*(\w+)\*\* \| \*\*([\d.]+)%\*\* \| \d+% \| (\d+) \|$", CARD, re.MULTILINE)
    return {name: (float(share) / 100, int(n)) for name, share, n in rows}


@cache
def wrong(pack: str, first: int | None = None) -> tuple[set[str], PromptSet]:
    """Return the ids of a pack's prompts that the model answers wrongly, and the pack."""
    prompts = open_prompts(pack)[:first]
    scores = evaluate(load_model(NAME), prompts, batch_size=64).by_prompt["exact_match"]
    return {prompt.id for prompt, right in zip(prompts, scores, strict=True) if not right}, prompts


def test_its_card_keeps_the_bars_and_it_answers_its_pack_as_the_card_tells() -> None:
    told = {domain: shares()[domain][0] for domain in DOMAINS}
    assert all(told[domain] >= BARS[domain] for domain in DOMAINS)
    missed, prompts = wrong("steps")
    spread = (told[STEPS] * (1 - told[STEPS]) / len(prompts)) ** 0.5  # of a share of so many drawings
    assert 1 - len(missed) / len(prompts) >= told[STEPS] - 3 * spread


@pytest.mark.parametrize("domain", DOMAINS)
def test_its_card_lists_as_missed_what_these_weights_miss(domain: str) -> None:
    """A pack to report on is the end of the held-out drawings that the card is measured on."""
    missed, prompts = wrong(f"{domain}-report")
    listed = set(json.loads(asset(NAME, MISSED_FILE).read_text("utf-8")))
    assert missed == listed & {prompt.id for prompt in prompts}


def test_the_shares_of_its_card_are_those_of_the_list() -> None:
    listed = json.loads(asset(NAME, MISSED_FILE).read_text("utf-8"))
    told = shares()
    assert set(told) == {*TASKS, *DOMAINS}
    for name, (share, n) in told.items():
        tasks = [name] if name in TASKS else [task for task, one in TASKS.items() if one.domain == name]
        missed = sum(row.rpartition("-")[0] in tasks for row in listed)
        assert round(share, 3) == round(1 - missed / n, 3)
        fellows = 1 if name in DOMAINS else sum(one.domain == TASKS[name].domain for one in TASKS.values())
        assert 0 <= n - 900 // fellows <= 1


def test_it_is_what_pocket_vl_is_but_for_its_weights() -> None:
    first, second = asset("pocket-vl"), asset(NAME)
    names = {path.name for path in second.iterdir()}
    assert names - OWN == {path.name for path in first.iterdir()} - OWN
    assert names >= OWN
    for name in names - OWN:
        assert (second / name).read_bytes() == (first / name).read_bytes(), name
    one, two = (json.loads((folder / "config.json").read_text("utf-8")) for folder in (first, second))
    assert two == one | {"dtype": "float16"}
    assert sum(path.stat().st_size for name in BUNDLED_MODELS for path in asset(name).iterdir()) < 15e6


def test_exports_and_titles_name_it_as_it_is_loaded() -> None:
    loaded = load_model(NAME)
    assert (loaded.name, _source(loaded), model_title(loaded.name)) == (NAME, NAME, "Pocket-VL Steps")
    assert loaded.fingerprint != load_model().fingerprint


def test_its_weights_are_finite_and_stored_in_half() -> None:
    with safe_open(asset(NAME, "model.safetensors"), "pt") as file:
        for name in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(name)
            assert str(tensor.dtype) == "torch.float16", name
            assert tensor.isfinite().all(), name

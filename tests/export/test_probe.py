"""A probe travels with an export: real servers of the folder are told right from broken, each with the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from openai_server import serving, without_deepstack, wrongly_numbered
from outside import outside_prompts, save_outside_model
from typer.testing import CliRunner

from vlm_analysis import LoadedModel, PruneMask, apply_edit, cli, export_checkpoint, load_model, probe_server
from vlm_analysis.edits.view import misnumbered
from vlm_analysis.export.checkpoint import Manifest
from vlm_analysis.export.probe.make import make_probe
from vlm_analysis.export.probe.value import open_probe, probe_words
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.workbench.exports import probe_prompts

MASK = PruneMask(16, (5, 9, 11))


@pytest.fixture(scope="module")
def exported(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("probed") / "pruned"
    return folder, export_checkpoint(loaded, MASK, folder, verify=False, probe=probe_prompts(None))


@pytest.fixture(scope="module")
def right(exported: tuple[Path, Manifest]) -> Iterator[str]:
    with serving(load_model(exported[0])) as url:
        yield url


class TestServers:
    def test_a_right_one_is_equal_in_every_answer_and_log_probability(
        self, exported: tuple[Path, Manifest], right: str
    ) -> None:
        found = probe_server(right, exported[0])
        assert (found.verdict, found.model) == ("equal", "exported")
        assert {one.verdict for one in found.prompts} == {"equal"}
        assert all(one.difference is not None and one.difference < 1e-5 for one in found.prompts)

    def test_one_that_loses_deepstack_features_is_broken_and_it_is_said_why(
        self, exported: tuple[Path, Manifest]
    ) -> None:
        with serving(without_deepstack(exported[0])) as url:
            found = probe_server(url, exported[0])
        n_tell = open_probe(exported[0]).n_tell("deepstack")
        assert found.verdict == "broken"
        assert sum(one.verdict == "broken" for one in found.prompts) == n_tell >= 2
        reason = f"{n_tell} of the {n_tell} answers that tell it are those of the model when its DeepStack features are lost."
        assert reason in found.reasons

    def test_one_that_numbers_layers_wrongly_is_broken_and_it_is_said_why(
        self, exported: tuple[Path, Manifest], tmp_path: Path
    ) -> None:
        with serving(load_model(wrongly_numbered(exported[0], tmp_path / "shifted")), logprobs=False) as url:
            found = probe_server(url, exported[0])
        n_tell = open_probe(exported[0]).n_tell("layers")
        assert found.verdict == "broken"
        reason = f"{n_tell} of the {n_tell} answers that tell it are those of the model when its layers are numbered wrongly."
        assert reason in found.reasons


class TestTheCommand:
    def test_it_prints_the_verdict_the_reasons_and_each_answer(
        self, exported: tuple[Path, Manifest], right: str
    ) -> None:
        done = CliRunner().invoke(cli.strata, ["probe", right, "--export", str(exported[0]), "-q"])
        assert done.exit_code == 0, (done.stderr, done.exception)
        assert done.stdout.startswith(f"{right}/v1, model exported: equal.\n8 of 8 answers are equal.\n")
        assert open_probe(exported[0]).words() in done.stdout
        told = json.loads(
            CliRunner().invoke(cli.strata, ["probe", right, "--export", str(exported[0]), "-q", "--json"]).stdout
        )
        assert (told["verdict"], len(told["prompts"])) == ("equal", 8)

    def test_a_folder_without_a_probe_ends_with_one_message(self, tmp_path: Path) -> None:
        done = CliRunner().invoke(cli.strata, ["probe", "http://127.0.0.1:9", "--export", str(tmp_path), "-q"])
        assert done.exit_code == 2
        assert "holds no probe" in done.stderr


class TestTheProbe:
    def test_the_card_says_what_it_tells_and_the_manifest_has_its_files(self, exported: tuple[Path, Manifest]) -> None:
        folder, manifest = exported
        probe = open_probe(folder)
        assert probe.words() == probe_words(folder)
        assert len(probe.prompts) == 8
        assert {f"probe/{name}" for one in probe.prompts for name in one.images} <= set(manifest.files)
        card = (folder / "README.md").read_text("utf-8")
        assert "| vLLM 0.33.0 | loads |" in card
        assert "strata probe http://127.0.0.1:8000 --export ." in card
        assert f"{probe.words()}." in card
        serving_json = json.loads((folder / "serving.json").read_text("utf-8"))
        assert serving_json["engines"][0]["run_here"] is False  # it was not verified

    def test_the_opening_is_what_the_chat_template_writes_before_an_answer(
        self, exported: tuple[Path, Manifest]
    ) -> None:
        assert open_probe(exported[0]).opening == "<|im_start|>assistant\n"

    def test_pictures_that_the_bound_on_vision_tokens_makes_smaller_are_left_out(self, loaded: LoadedModel) -> None:
        bounded = replace(loaded, max_vision_tokens=16)
        assert make_probe(bounded, apply_edit(loaded.model, MASK), probe_prompts(None)[:2]) is None

    def test_where_no_prompt_tells_the_probe_says_so(self, tmp_path: Path) -> None:
        """A tiny LLaVA without DeepStack features, which answers the same whatever runs."""
        loaded = load_model(save_outside_model("llava", tmp_path / "llava"))
        with torch.no_grad():
            loaded.model.lm_head.weight.zero_()
        made = make_probe(loaded, loaded.model, list(outside_prompts()))
        assert made is not None
        assert made[0].not_tried == {"deepstack": "the model has no such features"}
        assert made[0].words() == (
            "4 prompts; the model has no such features, so none is there to tell whether its DeepStack features are lost; "
            "none tells whether its layers are numbered wrongly"
        )
        assert set(made[0].prompts[0].otherwise) == {"layers"}

    def test_prompts_come_from_domains_in_turn_or_from_nowhere(self, few: PromptSet) -> None:
        assert [one.domain for one in probe_prompts(few)] == ["math", "general"] * 3
        assert [one.id for one in probe_prompts(None)[:2]] == ["colour-0", "count-all-0"]
        assert probe_prompts(()) == []

    def test_a_model_without_a_chat_template_gets_none(self, loaded: LoadedModel) -> None:
        bare = replace(loaded)
        bare.__dict__["template"] = None
        assert make_probe(bare, loaded.model, probe_prompts(None)[:1]) is None

    def test_wrong_numbers_are_of_a_copy_that_shares_the_weights(self, loaded: LoadedModel, few: PromptSet) -> None:
        wrong = misnumbered(loaded.model)
        layers, moved = (one.model.language_model.layers for one in (loaded.model, wrong))
        order = [
            next(i for i, own in enumerate(layers) if own.mlp.up_proj.weight is layer.mlp.up_proj.weight)
            for layer in moved
        ]
        assert order == [*range(1, 16), 0]
        assert (
            [layer.self_attn.layer_idx for layer in layers]
            == [layer.self_attn.layer_idx for layer in moved]
            == [*range(16)]
        )

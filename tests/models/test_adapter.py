"""Adapters: a plain LoRA is merged exactly into a base that is at hand; what is more than that is refused by what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import ask
from safetensors.torch import save_file

from vlm_analysis import LoadedModel, PromptSet, PruneMask, export_checkpoint, load_model
from vlm_analysis.errors import ModelError
from vlm_analysis.models.source import BUNDLED_FOLDER, open_source

LAYERS, RANK, ALPHA = (2, 9), 4, 6
PATH = "model.language_model.layers.{}.self_attn.q_proj"


def matrices(*, prefix: str = "base_model.model.", path: str = PATH) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    made = {}
    for layer in LAYERS:
        for part, shape in (("A", (RANK, 96)), ("B", (96, RANK))):
            made[f"{prefix}{path.format(layer)}.lora_{part}.weight"] = torch.randn(shape, generator=draw)
    return made


def saved(folder: Path, weights: dict[str, torch.Tensor] | None = None, **settings: Any) -> Path:
    plain = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "base_model_name_or_path": str(BUNDLED_FOLDER)}
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(plain | settings))
    save_file(matrices() if weights is None else weights, folder / "adapter_model.safetensors")
    return folder


class TestMerging:
    @pytest.mark.parametrize("settings", [{}, {"use_rslora": True}], ids=["LoRA", "rank-stabilised"])
    def test_the_weights_are_those_of_a_float64_sum(
        self, loaded: LoadedModel, tmp_path: Path, settings: dict[str, Any]
    ) -> None:
        merged = load_model(saved(tmp_path / "lora", **settings))
        scale = ALPHA / (RANK**0.5 if settings else RANK)
        weights, made = dict(loaded.model.named_parameters()), matrices()
        changed = {PATH.format(layer) + ".weight" for layer in LAYERS}
        for name, weight in merged.model.named_parameters():
            want = weights[name].double()
            if name in changed:
                one = "base_model.model." + name.removesuffix(".weight")
                want = want + scale * made[f"{one}.lora_B.weight"].double() @ made[f"{one}.lora_A.weight"].double()
            assert torch.equal(weight, want.float()), name
            assert torch.equal(weight, weights[name]) == (name not in changed)

    def test_it_is_said_and_enters_the_fingerprint(self, loaded: LoadedModel, few: PromptSet, tmp_path: Path) -> None:
        merged = load_model(saved(tmp_path / "lora"))
        assert merged.name == "lora"
        assert merged.info.adapter == merged.adapter
        assert str(merged.adapter).startswith("lora (")
        assert loaded.info.adapter is None
        assert merged.fingerprint != loaded.fingerprint
        logits = [one.model(**ask(one, few[0]), use_cache=False).logits for one in (loaded, merged)]
        assert not torch.allclose(*logits)

    def test_names_of_older_versions_of_transformers_find_their_layer(self, tmp_path: Path) -> None:
        old = matrices(path=PATH.replace("model.language_model", "language_model"))
        merged, plain = load_model(saved(tmp_path / "old", old)), load_model(saved(tmp_path / "lora"))
        assert merged.fingerprint == plain.fingerprint

    def test_an_export_holds_the_merged_weights_and_the_template_beside_the_adapter(
        self, few: PromptSet, tmp_path: Path
    ) -> None:
        folder = saved(tmp_path / "lora")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((BUNDLED_FOLDER / name).read_bytes())
        template = (BUNDLED_FOLDER / "chat_template.jinja").read_text().replace("assistant", "model")
        (folder / "chat_template.jinja").write_text(template)
        merged = load_model(folder)
        assert merged.processor.chat_template == template
        manifest = export_checkpoint(merged, PruneMask(16, [5]), tmp_path / "out", verify=False)
        assert "./lora" in manifest.reproduce
        again = load_model(tmp_path / "out")
        assert again.processor.chat_template == template
        weight = again.model.get_parameter(PATH.format(8) + ".weight")  # layer 9 of the dense model
        assert torch.equal(weight, merged.model.get_parameter(PATH.format(9) + ".weight"))


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"use_dora": True}, r"is no plain LoRA: expected False as use_dora, got 'True'\. Merge it into its base with peft"),
            ({"peft_type": "IA3"}, "expected 'LORA' as peft_type, got 'IA3'"),
            ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
            ({"init_lora_weights": "pissa"}, "init_lora_weights"),
            ({"base_model_name_or_path": "someone/some-vlm"}, "its base model is not at hand: .*'someone/some-vlm'.*Load that model once"),
            ({"base_model_name_or_path": None}, "its base model is not at hand"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_merged_is_refused_before_weights_are_read(
        self, tmp_path: Path, settings: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(ModelError, match=words):
            open_source(saved(tmp_path / "lora", **settings))

    @pytest.mark.parametrize(
        ("weights", "words"),
        [
            (matrices(path="model.language_model.layers.{}.self_attn.w_proj"), r"expected a linear layer '.*w_proj' .*got none"),
            ({name: value[:, :-1].contiguous() for name, value in matrices().items()}, "does not fit its base"),
            (matrices(prefix="other."), "is no plain LoRA: expected matrices lora_A and lora_B"),
            ({"base_model.model.x.lora_A.weight": torch.zeros(2, 2)}, "is damaged: expected two matrices"),
        ],
        ids=["no such layer", "another shape", "other names", "one of two"],
    )  # fmt: skip
    def test_matrices_that_do_not_fit_are_named(
        self, loaded: LoadedModel, tmp_path: Path, weights: dict[str, torch.Tensor], words: str
    ) -> None:
        from oracles import changed_copy

        from vlm_analysis.models.adapter import merge, open_adapter

        with pytest.raises(ModelError, match=words):
            merge(changed_copy(loaded).model, open_adapter(saved(tmp_path / "lora", weights)))

    def test_another_tokenizer_beside_it_is_not_taken_for_the_base_s(self, tmp_path: Path) -> None:
        folder = saved(tmp_path / "lora")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((BUNDLED_FOLDER / name).read_bytes())
        content = json.loads((folder / "tokenizer.json").read_text())
        content["added_tokens"].append({**content["added_tokens"][1], "id": 93, "content": "<|more|>"})
        (folder / "tokenizer.json").write_text(json.dumps(content))
        with pytest.raises(ModelError, match="was trained with another tokenizer"):
            load_model(folder)

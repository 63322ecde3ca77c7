"""Will it serve: what each engine does with an export, by the rules that were read, and nothing more."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vlm_analysis import Drop, Edit, PruneMask
from vlm_analysis.assets import asset
from vlm_analysis.edits.change import Change
from vlm_analysis.edits.kinds import table
from vlm_analysis.export.serving.engines import ENGINES
from vlm_analysis.export.serving.lists import BY_LIST, BY_PLACE, LISTED, NOWHERE
from vlm_analysis.export.serving.rules import Architecture, Served, architecture_of, served_by, write_serving

POCKET = json.loads(asset("pocket-vl", "config.json").read_text("utf-8"))
SIX = ["sliding_attention"] * 2 + ["full_attention"]


def verdicts(edit: Edit, architecture: Architecture, **more: Any) -> dict[str, Served]:
    return {one.engine: one for one in served_by(edit, architecture, **more)}


def gemma3(n_layers: int = 6) -> Architecture:
    text = {"num_hidden_layers": n_layers, "layer_types": (SIX * n_layers)[:n_layers]}
    return architecture_of({"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text})


def test_the_bundled_model_loads_where_it_is_listed_and_loses_deepstack_in_onnx() -> None:
    found = architecture_of(POCKET)
    assert (found.name, found.n_deepstack, found.has_lists) == ("Qwen3VLForConditionalGeneration", 2, False)
    told = verdicts(PruneMask(16, (5, 9)), found)
    assert {name: one.verdict for name, one in told.items()} == {
        "transformers": "loads", "vLLM": "loads", "SGLang": "loads", "llama.cpp": "loads", "MLX (mlx-vlm)": "loads",
        "ONNX (onnxruntime-genai)": "other answers",
    }  # fmt: skip
    assert "DeepStack features of the image are lost" in told["ONNX (onnxruntime-genai)"].reason
    assert not any(one.run_here for one in told.values())


def test_only_transformers_is_ever_run_here_and_only_after_the_proof() -> None:
    told = verdicts(PruneMask(16, (5,)), architecture_of(POCKET), proved="5.24.0")
    assert [name for name, one in told.items() if one.run_here] == ["transformers"]
    assert told["transformers"].version == "5.24.0"
    assert "bit for bit" in told["transformers"].reason


def test_every_line_names_the_folder_as_one_word_of_a_shell() -> None:
    folder = "/a folder/it's $HOME"
    for one in served_by(PruneMask(16, (5,)), architecture_of(POCKET), folder):
        lines = [shlex.split(line) for line in one.commands]
        assert any(folder in line for line in lines), one.engine


def test_llama_cpp_prunes_a_dense_gguf_by_the_layers_of_the_mask() -> None:
    told = verdicts(PruneMask(16, (9, 5)), architecture_of(POCKET))["llama.cpp"]
    assert told.commands[-1] == "llama-quantize --prune-layers 5,9 dense.gguf pruned.gguf COPY"
    assert "--prune-layers" not in " ".join(verdicts(PruneMask(16), architecture_of(POCKET))["llama.cpp"].commands)


def test_lists_with_an_entry_for_each_layer_are_not_pruned_in_a_gguf() -> None:
    name = "Gemma4ForConditionalGeneration"
    text = {"num_hidden_layers": 6, "layer_types": SIX * 2}
    told = verdicts(PruneMask(6, (1,)), architecture_of({"architectures": [name], "text_config": text}))["llama.cpp"]
    assert told.verdict == "loads"
    assert "does not cut lists" in told.reason
    assert not any("--prune-layers" in line for line in told.commands)


@pytest.mark.parametrize(
    ("dropped", "vllm", "mlx", "llama"),
    [((3, 4, 5), "loads", "loads", "loads"), ((1,), "loads", "other answers", "other answers")],
)
def test_layers_that_come_to_a_place_of_another_kind_matter_to_engines_that_go_by_place(
    dropped: tuple[int, ...], vllm: str, mlx: str, llama: str
) -> None:
    told = verdicts(PruneMask(6, dropped), gemma3())
    assert (told["vLLM"].verdict, told["MLX (mlx-vlm)"].verdict, told["llama.cpp"].verdict) == (vllm, mlx, llama)
    assert told["ONNX (onnxruntime-genai)"].verdict == ("loads" if vllm == mlx else "not verified")


def test_an_architecture_that_is_in_no_list_is_refused_with_the_version_or_not_verified() -> None:
    told = verdicts(PruneMask(4, (1,)), Architecture("Ovis2ForConditionalGeneration"))
    assert told["MLX (mlx-vlm)"].verdict == told["llama.cpp"].verdict == "refuses"
    assert told["MLX (mlx-vlm)"].reason == "Ovis2ForConditionalGeneration is not in its list of 0.7.10."
    assert told["MLX (mlx-vlm)"].commands == ()
    assert told["vLLM"].verdict == told["SGLang"].verdict == "not verified"
    assert "its own backend for classes of transformers, which was not tried" in told["vLLM"].reason
    unknown = verdicts(PruneMask(4, (1,)), Architecture("TomorrowForConditionalGeneration"))
    assert {one.verdict for name, one in unknown.items() if name != "transformers"} == {"not verified"}


@pytest.mark.parametrize(
    ("text", "verdict"), [("VLlama3ForCausalLM", "loads"), ("", "refuses"), ("TomorrowForCausalLM", "not verified")]
)
def test_the_converter_of_llama_cpp_goes_by_the_decoders_own_class(text: str, verdict: str) -> None:
    told = verdicts(PruneMask(4, (1,)), Architecture("SmolVLMForConditionalGeneration", text))
    assert told["llama.cpp"].verdict == verdict


def test_dropping_a_deepstack_layer_is_told() -> None:
    told = verdicts(PruneMask(16, (1, 8)), architecture_of(POCKET))["vLLM"]
    assert "Without layer 1 DeepStack features go to the next layers" in told.reason


def test_a_change_that_no_stock_class_loads_is_refused_everywhere_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dataclass(frozen=True)
    class Odd(Change):
        kind: ClassVar[str] = "odd"
        reason_not_served: ClassVar[str] = "no class has odd layers"

        @property
        def layers(self) -> Mapping[int, str | None]:
            return {0: "odd"}

        def to_json(self) -> dict[str, Any]:
            return {}

        @classmethod
        def from_json(cls, content: Mapping[str, Any]) -> Odd:
            return cls()

        def words(self) -> str:
            return "makes layer 0 odd"

        def apply(self, view: Any) -> None: ...

    monkeypatch.setitem(table.KINDS, "odd", Odd)
    told = served_by(Edit(16, (Odd(), Drop((3,)))), architecture_of(POCKET))
    assert {(one.verdict, one.commands) for one in told} == {("refuses", ())}
    assert {one.reason for one in told} == {"The edit makes layer 0 odd: no class has odd layers."}


def test_the_lists_name_engines_that_there_are_and_each_class_once() -> None:
    keys = {engine.key for engine in ENGINES}
    for words in LISTED.values():
        assert set(words.split()) <= (keys - {"llama.cpp", "transformers"}) | {"text", "mmproj"}
    assert not set(LISTED) & set(NOWHERE)
    assert not set(BY_PLACE) & set(BY_LIST)
    for key, name in [*BY_PLACE, *BY_LIST]:
        assert key in keys
        assert name in LISTED
    for engine in ENGINES:
        assert engine.version
        assert engine.source


def test_serving_json_holds_it_all(tmp_path: Path) -> None:
    told = served_by(PruneMask(16, (5,)), architecture_of(POCKET))
    written = json.loads(write_serving(told, tmp_path).read_text("utf-8"))
    assert written["kind"] == "serving"
    assert [one["engine"] for one in written["engines"]] == [engine.title for engine in ENGINES]
    assert {*written["engines"][1]} == {"engine", "version", "verdict", "reason", "commands", "source", "run_here"}

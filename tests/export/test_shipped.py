"""Vision tokens skip layers of an exported checkpoint: a process that has no Strata loads it with the module in its folder."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Say, forked
from outside import outside_prompts, save_outside_model
from safetensors.torch import load_file, save_file

from vlm_analysis import (
    Edit,
    LoadedModel,
    PromptSet,
    PruneMask,
    Vision,
    apply_edit,
    export_checkpoint,
    load_model,
    open_edit,
)
from vlm_analysis.cli.exported import engine_lines, of_manifest
from vlm_analysis.edits.tokens.alone import load
from vlm_analysis.errors import EditError
from vlm_analysis.export import proof, reload
from vlm_analysis.export.serving.rules import open_serving
from vlm_analysis.export.shipped import MODULE_FILE, module_text
from vlm_analysis.models.inputs import encode

WITHOUT_STRATA = """
import sys
sys.modules["vlm_analysis"] = None
import torch
from safetensors.torch import load_file, save_file

for folder in sys.argv[1:]:
    sys.modules.pop("strata_vision", None)
    sys.path.insert(0, folder)
    from strata_vision import EditError, apply_vision, load
    model, inputs = load(folder), load_file(folder + "/inputs.safetensors")
    try:
        apply_vision(model, folder)
    except EditError as error:
        assert "already" in str(error)
    else:
        raise AssertionError("it was applied twice")
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits
        tokens = model.generate(**inputs, do_sample=False, max_new_tokens=6, min_new_tokens=6)
    save_file({"logits": logits, "tokens": tokens}, folder + "/found.safetensors")
"""


def edit_of(n_layers: int, form: str) -> Edit:
    last = n_layers - 1
    return Edit(n_layers, (Vision((0, last), (2,), form=form),)) + PruneMask(n_layers, [1])


@pytest.fixture(scope="module")
def models(loaded: LoadedModel, few: PromptSet, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Any]:
    """Exported folders, each with inputs beside the checkpoint, and the edited model of each."""
    home = tmp_path_factory.mktemp("shipped")
    llava = load_model(save_outside_model("llava", home / "llava"))
    made: dict[Path, Any] = {}
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # the process below is without Strata; tests/export/test_proof.py has that of the proof
        patch.setattr(proof, "_run", lambda folder, task, answer, progress: reload.run(folder, task, answer))
        for name, model, prompt, forms in (
            ("pocket", loaded, few[0], ("masked", "sliced")),
            ("tiny", llava, outside_prompts()[0], ("sliced",)),
        ):
            for form in forms:
                folder = home / f"{name}-{form}"
                edit = edit_of(model.n_layers, form)
                manifest = export_checkpoint(model, edit, folder, probe=[prompt])
                assert manifest.verified
                assert f"and {MODULE_FILE}: logits over" in of_manifest(manifest, folder, [], "").text
                save_file(
                    {key: value.contiguous() for key, value in encode(model, prompt).tensors.items()},
                    folder / "inputs.safetensors",
                )
                made[folder] = apply_edit(model.model, edit)
    return made


def fresh(folders: list[str]) -> None:
    subprocess.run([sys.executable, "-I", "-c", WITHOUT_STRATA, *folders], check=True, timeout=300)


def forgetful(folders: list[str]) -> None:
    """As a fresh process, which takes seconds to import torch, but forked of this one, and all of Strata forgotten."""

    def work(say: Say) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "vlm_analysis"]:
            del sys.modules[name]
        sys.argv = ["-c", *folders]
        exec(WITHOUT_STRATA, {})

    with forked(work) as process:
        assert (process.said.read(), process.ended()) == ("", 0)


@pytest.mark.parametrize("run", [forgetful, pytest.param(fresh, marks=pytest.mark.slow)])
def test_a_process_without_strata_answers_as_the_evaluated_model(
    models: dict[Path, Any], run: Callable[[list[str]], None]
) -> None:
    run([str(folder) for folder in models])
    for folder, view in models.items():
        inputs, found = load_file(folder / "inputs.safetensors"), load_file(folder / "found.safetensors")
        with torch.no_grad():
            torch.testing.assert_close(found["logits"], view(**inputs, use_cache=False).logits, rtol=1e-5, atol=1e-5)
            plain = view.generate(**inputs, do_sample=False, max_new_tokens=6, min_new_tokens=6)
        assert found["tokens"].tolist() == plain.tolist(), folder.name


def test_the_folder_says_what_it_is_and_no_server_takes_it(models: dict[Path, Any], loaded: LoadedModel) -> None:
    folder = next(folder for folder in models if folder.name == "pocket-sliced")
    told = json.loads((folder / "strata-vision.json").read_text())
    assert (told["class"], told["n_layers"], told["layers"]) == (
        type(loaded.model).__name__,
        15,
        "model.language_model.layers",
    )
    assert (told["absent"], told["frozen"], told["form"]) == ([0, 14], [1], "sliced")
    assert open_edit(folder / "strata-edit.json") == edit_of(16, "sliced")
    assert not (folder / "probe").exists()
    assert "from strata_vision import load" in (folder / "README.md").read_text("utf-8")
    served = {one.engine: one for one in open_serving(folder)}
    assert served.pop("transformers").verdict == "loads"
    assert "loads" not in {one.verdict for one in served.values()}
    assert all("stock classes run every layer on all tokens" in one.reason for one in served.values())
    lines = engine_lines(open_serving(folder))
    assert (
        sum("stock classes run every layer on all tokens" in line for line in lines) == 2
    )  # the proved one, and all others
    assert lines[0].startswith("Of all engines: The edit hides vision tokens")
    assert len(lines) == 1 + len(open_serving(folder))
    assert any("Strata reads no such file" in line for line in load_model(folder).disagreements)


def test_an_ordinary_folder_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(
        EditError, match=r"expected strata-vision\.json in .*, got a folder without it\. Load an ordinary"
    ):
        load(tmp_path)


def test_the_module_is_one_file_that_defines_each_name_once() -> None:
    tree = ast.parse(module_text())
    names = Counter(
        name
        for node in tree.body
        for name in ([node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else [])
        + (
            [target.id for target in node.targets if isinstance(target, ast.Name)]
            if isinstance(node, ast.Assign)
            else []
        )
    )
    assert [name for name, count in names.items() if count > 1] == []
    imported = {
        (node.module or "").partition(".")[0] if isinstance(node, ast.ImportFrom) else alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported - {"torch", "transformers"} <= sys.stdlib_module_names
    assert "vlm_analysis" not in module_text()
    assert MODULE_FILE == "strata_vision.py"

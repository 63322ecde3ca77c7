"""The fresh process of an export: loads the written folder with plain transformers alone, with its own module where it has one, and writes
the model's outputs.

    python -m vlm_analysis.export.reload FOLDER TASK ANSWER

TASK is a safetensors file with the model's inputs, and in its metadata the settings (see `run`); ANSWER is written: `logits`
(1, n_tokens, vocabulary) and `tokens` (n_new,), with the versions as metadata. The process ends when its parent ends.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import platform
import sys
import threading
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText

from vlm_analysis.models.weights import aligned

OUT_OF_MEMORY = 77  # exit status
_GREEDY = {
    "do_sample": False,
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "num_beams": 1,
    "num_return_sequences": 1,
    "stop_strings": None,
    "max_length": None,
}


@torch.inference_mode()
def outputs(
    model: Any, inputs: dict[str, torch.Tensor], *, max_new_tokens: int, pad_token: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits (1, n_tokens, vocabulary) of one pass and the tokens (n_new,) of the greedy answer.

    Always greedy: sampling and beam settings of the generation configuration are overridden, its other settings are used.
    """
    inputs = {name: value.clone() for name, value in inputs.items()}  # aligned in memory, like the weights
    logits = model(**inputs, use_cache=False).logits
    settings = copy.deepcopy(model.generation_config)
    settings.update(**_GREEDY, max_new_tokens=max_new_tokens, pad_token_id=pad_token)
    tokens = model.generate(**inputs, generation_config=settings)
    return logits, tokens[0, inputs["input_ids"].shape[1] :]


def versions() -> dict[str, str]:
    """Return the library versions, on which the last bits depend."""
    return {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}


def run(folder: Path, task: Path, answer: Path) -> None:
    """Load the folder and write its logits and answer for the inputs of a task file.

    The task's metadata holds, as JSON under `how`: device, dtype, attention, threads (which decides the last bits
    of sums on a CPU), matmul (float32 precision), max_new_tokens, pad_token, and device_map where the model is spread over devices.
    """
    with safe_open(task, framework="pt") as file:
        how = json.loads(file.metadata()["how"])
        inputs = {name: file.get_tensor(name).to(how["device"]) for name in file.keys()}  # noqa: SIM118 - not a mapping
    torch.set_num_threads(how["threads"])
    torch.set_float32_matmul_precision(how["matmul"])
    spread = how.get("device_map")
    model = AutoModelForImageTextToText.from_pretrained(
        folder,
        **({"device_map": spread, "offload_folder": task.parent / "offload"} if spread else {}),
        dtype=getattr(torch, how["dtype"]),
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        attn_implementation=how["attention"],
    )
    model = _with_shipped(aligned((model if spread else model.to(how["device"])).eval()), folder)
    logits, tokens = outputs(model, inputs, max_new_tokens=how["max_new_tokens"], pad_token=how["pad_token"])
    tensors = {"logits": logits.cpu().contiguous(), "tokens": tokens.cpu().contiguous()}
    save_file(tensors, answer, metadata=versions())


def _with_shipped(model: Any, folder: Path) -> Any:
    """Return the model after what the folder's own module does to it, where it has one."""
    path = folder / "strata_vision.py"
    if not path.exists():
        return model
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # it is a file of Python
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.apply_vision(model, folder)


def _end_with_parent() -> None:
    """End this process when standard input ends, which happens when the parent process ends."""
    os.read(sys.stdin.fileno(), 1)  # not sys.stdin.read: its lock would be held at the end of a good run
    os._exit(1)


def main(folder: str, task: str, answer: str) -> None:
    """Run the comparison; the entry point of the process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    transformers.utils.logging.disable_progress_bar()
    try:
        run(Path(folder), Path(task), Path(answer))
    except (MemoryError, torch.OutOfMemoryError) as error:
        print(error, file=sys.stderr)
        sys.exit(OUT_OF_MEMORY)


if __name__ == "__main__":
    main(*sys.argv[1:])

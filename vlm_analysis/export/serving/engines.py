"""The table of engines: what was read of each, in which version and where, and the lines that start it."""

from __future__ import annotations

from dataclasses import dataclass

LOADS, REFUSES, OTHER_ANSWERS, NOT_VERIFIED = "loads", "refuses", "other answers", "not verified"


@dataclass(frozen=True)
class Engine:
    """An engine that serves or converts checkpoints.

    Attributes:
        key: its word in the lists (`lists.LISTED`).
        version, source: what was read, and where in it.
        commands: shell lines; `{folder}` is the exported folder, quoted.
        falls_back: what it does with an architecture that it does not list, where it goes on; "" where it refuses.
        has_deepstack: whether its code adds DeepStack features; `without_deepstack` says what was read where it does not.
        note: what else to know of a checkpoint that loads.
    """

    key: str
    title: str
    version: str
    source: str
    commands: tuple[str, ...]
    falls_back: str = ""
    has_deepstack: bool = True
    without_deepstack: str = ""
    note: str = ""


_TRANSFORMERS_CLASSES = "It then tries its own backend for classes of transformers, which was not tried."

ENGINES = (
    Engine("transformers", "transformers", "5.23.0", "run by the export", ("transformers serve {folder}",)),
    Engine(
        "vllm",
        "vLLM",
        "0.33.0",
        "vllm 0.33.0: vllm/model_executor/models/registry.py, qwen3_vl.py",
        ("vllm serve {folder}",),
        falls_back=_TRANSFORMERS_CLASSES,
    ),
    Engine(
        "sglang",
        "SGLang",
        "0.5.23",
        "sglang 0.5.23: sglang/srt/models/registry.py and each EntryClass, model_loader/utils.py",
        ("python -m sglang.launch_server --model-path {folder}",),
        falls_back=_TRANSFORMERS_CLASSES,
    ),
    Engine(
        "llama.cpp",
        "llama.cpp",
        "0c1e57098",
        "llama.cpp 0c1e57098: conversion/__init__.py, conversion/base.py, src/llama-quant.cpp, src/models/qwen3vl.cpp",
        (
            "python convert_hf_to_gguf.py {folder} --outfile pruned.gguf",
            "python convert_hf_to_gguf.py {folder} --mmproj --outfile mmproj.gguf",
            "llama-server -m pruned.gguf --mmproj mmproj.gguf",
        ),
        note="Its converter refuses a tokenizer that it does not know.",
    ),
    Engine(
        "mlx",
        "MLX (mlx-vlm)",
        "0.7.10",
        "mlx-vlm 0.7.10: mlx_vlm/utils.py, mlx_vlm/models, server/cli.py",
        ("mlx_vlm.server --model {folder}",),
    ),
    Engine(
        "onnx",
        "ONNX (onnxruntime-genai)",
        "0.18.0",
        "onnxruntime-genai 0.18.0: models/builder.py, models/builders",
        (
            "python -m onnxruntime_genai.models.builder -i {folder} -o onnx -p fp32 -e cpu --extra_options exclude_embeds=true",
        ),
        has_deepstack=False,
        without_deepstack="its builder has no code for them.",
        note="Its builder writes the decoder only; how the vision part gets there was not read.",
    ),
)

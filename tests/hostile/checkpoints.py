"""Checkpoints: configurations, headers, indices, tokenizers and templates that lie, run for ever or lead outside."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vlm_analysis.assets import asset
from vlm_analysis.errors import ModelError
from vlm_analysis.guard.child import ChildError
from vlm_analysis.models import templates
from vlm_analysis.models.files import weight_files
from vlm_analysis.models.source import open_source
from vlm_analysis.models.trial import check_processor

from .cases import Case, changed, texts

BUNDLED = asset("pocket-vl")
OPTIONS = {"trust_remote_code": False, "revision": "main", "local_files_only": True}
TEMPLATES = {
    "three loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "two loops of text": "{% for a in 'x' * 99999 %}{% for b in 'x' * 99999 %}{% endfor %}{% endfor %}",
    "a gigabyte": "{{ 'x' * 10**9 }}",
    "doubling": "{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "a tower of powers": "{{ 9 ** (9 ** 9) }}",
    "much output": "{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}",
    "recursion": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "a class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "a format": "{{ '{0.__class__}'.format(messages) }}",
    "a file": "{% include '/etc/passwd' %}",
    "an import": "{% import 'os' as os %}",
    "no end": "{% if true %}",
    "deep": "{% if true %}" * 500,
    "a long name": "{{ " + "a" * 2_000_000 + " }}",
    "no template": "",
    "a text of others": "{{ messages[0]['content'] | tojson * 10**8 }}",
    "a wide table": "{{ 'x'.center(10**9) }}",
    "a wide format": "{{ '%1000000000d' % 1 }}",
    "a list of lists": "{{ [[0] * 10**8] * 10 }}",
    "sorting": "{{ range(99999) | sort | batch(2) | list | length * 10**7 * 'x' }}",
}
MAY_FILL = ("a format",)


def read_source(folder: Path) -> None:
    open_source(folder)


def read_weights(folder: Path) -> None:
    weight_files(folder)


def read_tokenizer(folder: Path) -> None:
    check_processor(str(folder), OPTIONS, "it")


def cases() -> Iterator[Case]:
    """Yield all cases of checkpoints."""
    yield from _configurations()
    yield from _weights()
    yield from _tokenizers()
    for name, template in TEMPLATES.items():
        yield Case("template", name, lambda folder: None, functools.partial(_fill, template), name not in MAY_FILL)


def _fill(template: str, folder: Path) -> None:
    processor = SimpleNamespace(
        chat_template=template, tokenizer=SimpleNamespace(special_tokens_map={"eos_token": "x"})
    )
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]
    child, usual = templates._child(), templates.BOUNDS
    child.bounds = replace(usual, seconds=3)  # those that never end take no longer then
    try:
        assert len(templates.filled(processor, messages, open_answer=True)) < 1 << 24
    except (ChildError, ValueError) as error:
        raise ModelError(f"The chat template failed: {error}") from error
    finally:
        child.bounds = usual


def _configurations() -> Iterator[Case]:
    config = json.loads((BUNDLED / "config.json").read_text("utf-8"))
    small = {name: config[name] for name in ("model_type", "architectures", "image_token_id") if name in config}
    text = {name: config["text_config"][name] for name in ("hidden_size", "num_hidden_layers", "vocab_size")}
    small |= {"text_config": {**text, "model_type": config["text_config"]["model_type"]}}
    for name, content in changed(small):
        yield Case("configuration", name, functools.partial(_copied, {"config.json": content.encode()}), read_source)
    for name, data in texts(json.dumps(config)).items():
        make = functools.partial(_copied, {"config.json": data})
        yield Case("configuration", name, make, read_source, refused=name not in ("names twice", "newer", "no UTF-8"))
    for key in ("num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads", "intermediate_size"):
        for value in (10**9, 10**12, -1, 1e300, "16"):
            other = {**config, "text_config": {**config["text_config"], key: value}}
            make = functools.partial(_copied, {"config.json": json.dumps(other).encode()})
            yield Case("configuration", f"{key} of {value!r}", make, read_source, refused=True)
    for name in (
        "config.json",
        "tokenizer.json",
        "preprocessor_config.json",
        "generation_config.json",
        "model.safetensors",
    ):
        yield Case("checkpoint folder", f"a pipe as {name}", functools.partial(_piped, name), read_source, refused=True)
        yield Case(
            "checkpoint folder", f"an endless {name}", functools.partial(_endless, name), read_source, refused=True
        )


def _weights() -> Iterator[Case]:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    good = {"x": entry}
    headers: dict[str, Any] = {
        "a shape of others": {"x": {**entry, "shape": [3]}},
        "a negative shape": {"x": {**entry, "shape": [-2]}},
        "a huge shape": {"x": {**entry, "shape": [2**62, 2**62]}},
        "offsets beyond": {"x": {**entry, "shape": [2**20], "data_offsets": [0, 2**22]}},
        "offsets back": {"x": {**entry, "data_offsets": [8, 0]}},
        "no offsets": {"x": {"dtype": "F32", "shape": [2]}},
        "another type": {"x": {**entry, "dtype": "F3"}},
        "a type of text": {"x": {**entry, "dtype": "x"}},
        "a type of numbers": {"x": {**entry, "dtype": 3}},
        "a list": [good],
        "null": None,
        "text": "x",
        "text for a tensor": {"x": "y"},
    }
    for name, header in headers.items():
        data = json.dumps(header).encode()
        yield _weight(name, len(data).to_bytes(8, "little") + data + bytes(8))
    for name, data in {
        "empty": b"",
        "four bytes": b"1234",
        "a header of 8 EB": b"\xff" * 8 + b"{}",
        "a header of 90 MB": (90_000_000).to_bytes(8, "little") + b"{}",
        "deep lists": (100_000).to_bytes(8, "little") + b"[" * 100_000,
        "no JSON": (3).to_bytes(8, "little") + b"abc",
    }.items():
        yield _weight(name, data)
    shard = len(json.dumps(good)).to_bytes(8, "little") + json.dumps(good).encode() + bytes(8)
    indices: dict[str, Any] = {
        "outside": {"weight_map": {"x": "../it.safetensors"}},
        "absolute": {"weight_map": {"x": "/etc/passwd"}},
        "missing": {"weight_map": {"x": "none.safetensors"}},
        "a pickle": {"weight_map": {"x": "it.bin"}},
        "numbers": {"weight_map": {"x": 3}},
        "a list": {"weight_map": ["it.safetensors"]},
        "empty": {"weight_map": {}},
        "no map": {},
        "null": None,
        "zero byte": {"weight_map": {"x": "it.safetensors\0.safetensors"}},
    }
    for name, index in indices.items():
        files = {"model.safetensors.index.json": json.dumps(index).encode(), "it.safetensors": shard}
        yield Case("index", name, functools.partial(_files, files), read_weights, refused=True)
    for name in ("pytorch_model.bin", "model.ckpt", "consolidated.pth"):
        yield Case(
            "weights", f"only {name}", functools.partial(_files, {name: b"\x80\x04."}), read_weights, refused=True
        )


def _tokenizers() -> Iterator[Case]:
    whole = json.loads((BUNDLED / "tokenizer.json").read_text("utf-8"))
    regex = {"type": "Replace", "pattern": {"Regex": "(a+)+b"}, "content": "x"}
    longer = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100_000}
    many = {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 40}
    steps = {"expanding": longer, "doubling": many, "backtracking": regex}
    for name, step in steps.items():
        files = {"tokenizer.json": json.dumps({**whole, "normalizer": step}).encode()}
        yield Case("tokenizer", name, functools.partial(_files, files), read_tokenizer, refused=name != "backtracking")
    split = {"type": "Split", "pattern": {"Regex": "(x+x+)+y|(a|aa)+$"}, "behavior": "Isolated", "invert": False}
    files = {"tokenizer.json": json.dumps({**whole, "pre_tokenizer": split}).encode()}
    yield Case("tokenizer", "a split that backtracks", functools.partial(_files, files), read_tokenizer)
    for name, data in texts(json.dumps(whole)).items():
        yield Case("tokenizer", name, functools.partial(_files, {"tokenizer.json": data}), read_tokenizer)
    for key in ("height", "width", "longest_edge", "min_pixels", "max_num_tiles", "patch_size", "num_crops"):
        settings = {"size": {key: 10**12}}
        files = {"preprocessor_config.json": json.dumps(settings).encode()}
        yield Case("image settings", key, functools.partial(_files, files), read_tokenizer, refused=True)


def _weight(name: str, data: bytes) -> Case:
    return Case("weights", name, functools.partial(_files, {"model.safetensors": data}), read_weights, refused=True)


def _files(files: dict[str, bytes], folder: Path) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _copied(files: dict[str, bytes], folder: Path) -> None:
    """Write a copy of the bundled model, its large files as links, with other files in place of its own."""
    for path in BUNDLED.iterdir():
        if path.is_file() and path.name not in files:
            (folder / path.name).symlink_to(path)
    _files(files, folder)


def _piped(name: str, folder: Path) -> None:
    _replaced(os.mkfifo, name, folder)


def _endless(name: str, folder: Path) -> None:
    _replaced(lambda path: path.symlink_to("/dev/zero"), name, folder)


def _replaced(what: Callable[[Path], object], name: str, folder: Path) -> None:
    _copied({}, folder)
    (folder / name).unlink()
    what(folder / name)

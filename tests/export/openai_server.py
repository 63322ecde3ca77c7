"""A small OpenAI-compatible server of an exported folder, for tests: it loads the folder and writes greedy answers, right or broken."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from oracles import ask
from PIL import Image
from safetensors.torch import load_file, save_file

from vlm_analysis import LoadedModel, Prompt, load_model

_LAYER = re.compile(r"(language_model\.(?:model\.)?layers\.)(\d+)\.")


def without_deepstack(folder: Path) -> LoadedModel:
    """Return the exported model as a server loads it that loses DeepStack features: what their mergers write is zero."""
    loaded = load_model(folder)
    for merger in loaded.model.model.visual.deepstack_merger_list:
        merger.linear_fc2.weight.data.zero_()
        merger.linear_fc2.bias.data.zero_()
    return loaded


def wrongly_numbered(folder: Path, to: Path) -> Path:
    """Copy an exported folder as a server reads it that counts layers from 1: each layer's tensors have the number below."""
    shutil.copytree(folder, to)
    tensors = load_file(to / "model.safetensors")
    n_layers = json.loads((to / "config.json").read_text("utf-8"))["text_config"]["num_hidden_layers"]

    def below(found: re.Match[str]) -> str:
        return f"{found[1]}{(int(found[2]) - 1) % n_layers}."

    renamed = {_LAYER.sub(below, name): tensor for name, tensor in tensors.items()}
    assert renamed.keys() == tensors.keys()
    save_file(renamed, to / "model.safetensors", metadata={"format": "pt"})
    return to


@contextmanager
def serving(loaded: LoadedModel, *, logprobs: bool = True) -> Iterator[str]:
    """Serve a model at an address of its own, which is yielded; with log-probabilities of the first token where asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({"object": "list", "data": [{"id": "exported", "object": "model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                self.answer(completion(loaded, body, logprobs=logprobs and bool(body.get("logprobs"))))

        def answer(self, content: dict[str, Any]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: Any) -> None: ...

    lock = threading.Lock()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@torch.inference_mode()
def completion(loaded: LoadedModel, body: dict[str, Any], *, logprobs: bool) -> dict[str, Any]:
    """Return a chat completion, by the model's own `generate`."""
    assert body["temperature"] == 0
    (message,) = body["messages"]
    images = [_picture(part["image_url"]["url"]) for part in message["content"] if part["type"] == "image_url"]
    (question,) = [part["text"] for part in message["content"] if part["type"] == "text"]
    inputs = ask(loaded, Prompt(tuple(images), question, id="asked"))
    written = loaded.model.generate(
        **inputs,
        max_new_tokens=body["max_tokens"],
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    ids = written.sequences[0, inputs["input_ids"].shape[1] :]
    text = loaded.processor.tokenizer.decode(ids, skip_special_tokens=True)
    first = {
        "token": loaded.processor.tokenizer.decode(ids[:1]),
        "logprob": float(written.logits[0][0].double().log_softmax(-1)[ids[0]]),
    }
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"choices": [choice | {"logprobs": {"content": [first]} if logprobs else None}]}


def _picture(url: str) -> Image.Image:
    head, data = url.split(",", 1)
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))

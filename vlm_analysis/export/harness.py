"""Prompts as a task of two evaluation harnesses, lm-evaluation-harness and lmms-eval: YAML, Parquet, and the commands.

The folder of a task holds

    prompts.parquet             a row for each prompt with an answer; its pictures as Strata opens them, as PNG
    lm-evaluation-harness/      NAME.yaml
    lmms-eval/                  NAME.yaml and strata_parts.py, which puts pictures where they stand in the question
    README.md                   what is scored, and the commands

A harness lets the model write, and compares texts without special tokens; Strata's exact match compares tokens. Both are the same unless
a model writes special tokens inside of an answer, or one text in other tokens. Choices are no multiple choice task: neither harness
computes likelihoods with a picture.
"""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vlm_analysis import __version__
from vlm_analysis.assets import BUNDLED_MODELS, asset
from vlm_analysis.errors import ExportError
from vlm_analysis.export.target import check_target, staged
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.places import MARK, order_of, texts_of
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.words import MOST_LISTED, counted

TABLE, LM_EVAL, LMMS_EVAL, CODE, MATCHES = (
    "prompts.parquet",
    "lm-evaluation-harness",
    "lmms-eval",
    "strata_parts.py",
    "strata_matches.py",
)
METRICS = ("exact_match", "normalised_match", "numeric_match")
TESTED = "0.4.13"  # of lm-evaluation-harness
_BATCH = 16  # prompts whose pictures are in memory at once
_LEAST_TOKENS, _SPARE_TOKENS = 16, 4
_NAME = re.compile(r"[A-Za-z0-9_]{1,80}")
_PARTS_CODE = '''\
"""The pictures and texts of a prompt in their order, for lmms-eval."""

from itertools import zip_longest


def visuals(doc):
    return doc["images"]


def messages(doc):
    texts = [{"type": "text", "text": text} for text in doc["text"].split("<image>")]
    pictures = [{"type": "image", "url": picture} for picture in doc["images"]]
    parts = [part for pair in zip_longest(texts, pictures) for part in pair]
    return [{"role": "user", "content": [part for part in parts if part and part.get("text") != ""]}]
'''
_MATCHES_CODE = '''\
"""Strata's matches of a response with any accepted answer. Strata must be installed beside the harness."""

from vlm_analysis import normalised_match, numeric_match


def process_results(doc, results):
    matches = {"normalised_match": normalised_match, "numeric_match": numeric_match, "exact_match": str.__eq__}
    return {name: float(any(match(results[0], one) for one in doc["answers"])) for name, match in matches.items()}
'''


@dataclass(frozen=True)
class ExportedTask:
    """A task that was written.

    Attributes:
        folder: where it lies.
        name: of the task in both harnesses.
        n_prompts: that it asks.
        left_out: ids of prompts without an answer, which no harness can score.
        commands: a line for each model and harness.
    """

    folder: Path
    name: str
    n_prompts: int
    left_out: tuple[str, ...] = ()
    commands: tuple[str, ...] = field(default=(), repr=False)


def export_task(
    prompts: PromptSet,
    folder: Path,
    *,
    name: str = "own_prompts",
    dense: str = "DENSE",
    edited: str = "EDITED",
    dtype: str = "auto",
    matches: bool = False,
    on_progress: Progress = no_progress,
) -> ExportedTask:
    """Write prompts as a task of lm-evaluation-harness and of lmms-eval, with the commands that run it.

    Args:
        prompts: those with an answer, or accepted answers, are asked; the rest is left out.
        folder: a new folder.
        name: of the task: letters, digits and underscores.
        dense, edited: Hub ids or folders of the dense and the exported model, for the commands; those of BUNDLED_MODELS are bundled.
        dtype: precision of the commands; "auto" is the checkpoint's.
        matches: score `normalised_match` and `numeric_match` too, by Strata's own functions: no YAML can say them. Strata must then
            be installed where the harness runs.
        on_progress: called before each prompt.

    Raises:
        ExportError: no prompt has an answer, the name is none, or the folder holds something or cannot be written.
        PromptError: a picture cannot be read.
    """
    if not _NAME.fullmatch(name):
        raise ExportError(
            f"The task has no such name: expected letters, digits and underscores, got {name[:100]!r}. Choose another."
        )
    asked = [prompt for prompt in prompts if _answers(prompt)]
    if not asked:
        raise ExportError(
            f"The prompts make no task: expected one answer at least, got none in {counted(len(prompts), 'prompt')}. "
            "Add an answer to the prompts that should be scored."
        )
    folder = check_target(Path(folder))
    commands = tuple(
        line
        for model, out in ((dense, "dense"), (edited, "edited"))
        for line in _commands(folder, name, model, dtype, out)
    )
    left_out = tuple(str(prompt.id) for prompt in prompts if not _answers(prompt))
    task = ExportedTask(folder, name, len(asked), left_out, commands)
    with staged(folder) as part:
        _write_table(asked, part / TABLE, on_progress)
        most = max(len(answer.encode()) for prompt in asked for answer in _answers(prompt)) + _SPARE_TOKENS
        for harness, texts in _harness_files(name, max(most, _LEAST_TOKENS), matches).items():
            (part / harness).mkdir()
            for file, text in texts.items():
                (part / harness / file).write_text(text, "utf-8")
        (part / "README.md").write_text(_readme(task, asked, matches), "utf-8")
    return task


def _answers(prompt: Prompt) -> tuple[str, ...]:
    """Return the accepted answers of a prompt; empty where it has none."""
    return prompt.answers or ((prompt.answer,) if prompt.answer else ())


# --- the table -----------------------------------------------------------------------------------------------------


def _schema() -> Any:
    """Return the schema of the table, with what the library `datasets` reads in it to open pictures."""
    import pyarrow as pa

    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    texts = ("id", "domain", "task", "question", "text")
    columns = {name: pa.string() for name in texts} | {
        "answers": pa.list_(pa.string()),
        "choices": pa.list_(pa.string()),
        "images": pa.list_(picture),
    }
    text = {"dtype": "string", "_type": "Value"}
    features: dict[str, Any] = dict.fromkeys(texts, text)
    features |= {name: {"feature": text, "_type": "Sequence"} for name in ("answers", "choices")}
    features["images"] = {"feature": {"_type": "Image"}, "_type": "Sequence"}
    return pa.schema(columns, {"huggingface": json.dumps({"info": {"features": features}})})


def _write_table(prompts: list[Prompt], path: Path, on_progress: Progress) -> None:
    from pyarrow import Table, parquet

    schema = _schema()
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(prompts), _BATCH):
            rows = list(_rows(prompts[start : start + _BATCH], start, len(prompts), on_progress))
            writer.write_table(Table.from_pylist(rows, schema=schema))


def _rows(prompts: list[Prompt], start: int, total: int, on_progress: Progress) -> Iterator[dict[str, Any]]:
    for number, prompt in enumerate(prompts, start):
        on_progress(number, total, "writing the prompts")
        pictures = prompt.load_images()
        names = [f"{name}.png" for name in prompt.image_hashes]
        yield {
            "id": prompt.id,
            "domain": prompt.domain,
            "task": prompt.task or "",
            "question": "".join(texts_of(prompt.parts)),
            "text": "".join(part if isinstance(part, str) else MARK for part in prompt.parts),
            "answers": list(_answers(prompt)),
            "choices": list(prompt.choices or ()),
            "images": [{"bytes": _png(pictures[index]), "path": names[index]} for index in order_of(prompt.parts)],
        }


def _png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


# --- the harnesses' files --------------------------------------------------------------------------------------------


def _harness_files(name: str, most_tokens: int, matches: bool) -> dict[str, dict[str, str]]:
    """Return the text of each file, by harness and file name."""
    common: dict[str, Any] = {
        "task": name,
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": TABLE}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_target": "answers",
    }
    metrics = METRICS if matches else METRICS[:1]
    listed = [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in metrics]
    greedy = {"until": [], "do_sample": False, "temperature": 0.0}
    scored = {"metric_list": listed, "metadata": {"version": 1.0}}
    scorer = {"process_results": f"!function {Path(MATCHES).stem}.process_results"} if matches else {}
    lm_eval = common | {"doc_to_text": "text", "doc_to_image": "images"}
    lm_eval |= {"generation_kwargs": greedy | {"max_gen_toks": most_tokens}} | scored
    lmms = common | {"doc_to_text": "question"}
    lmms |= {"generation_kwargs": greedy | {"max_new_tokens": most_tokens}} | scored
    parts = {
        "doc_to_visual": f"!function {Path(CODE).stem}.visuals",
        "doc_to_messages": f"!function {Path(CODE).stem}.messages",
    }
    more = {MATCHES: _MATCHES_CODE} if matches else {}
    return {
        LM_EVAL: {f"{name}.yaml": _yaml(lm_eval, scorer), **more},
        LMMS_EVAL: {f"{name}.yaml": _yaml(lmms, parts | scorer), CODE: _PARTS_CODE, **more},
    }


def _yaml(content: dict[str, Any], functions: dict[str, str]) -> str:
    """Return the YAML of a task; functions are tags that only a harness understands."""
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    tags = "".join(f"{key}: {value}\n" for key, value in functions.items())
    return f"# Written by Strata {__version__}. Run it in the folder of {TABLE}; see README.md there.\n{text}{tags}"


def _commands(folder: Path, name: str, model: str, dtype: str, out: str) -> tuple[str, str]:
    """Return the line for each harness that runs the task on a model."""
    where = str(asset(model)) if model in BUNDLED_MODELS else model
    where = str(Path(where).expanduser().absolute()) if Path(where).expanduser().exists() else where
    cd = f"cd {shlex.quote(str(folder))} && "
    shared = ["--tasks", name, "--batch_size", "1", "--log_samples", "--output_path"]
    lm_eval = ["lm_eval", "--model", "hf-multimodal", "--model_args", f"pretrained={where},dtype={dtype}"]
    lm_eval += ["--apply_chat_template", "--include_path", LM_EVAL, *shared, f"results/{out}"]
    lmms = ["python", "-m", "lmms_eval", "--model", "huggingface", "--model_args", f"pretrained={where}"]
    lmms += ["--include_path", LMMS_EVAL, *shared, f"results/{out}"]
    return cd + shlex.join(lm_eval), cd + shlex.join(lmms)


def _readme(task: ExportedTask, asked: list[Prompt], matches: bool) -> str:
    """Return what the task scores, what it cannot say, and the commands."""
    several = sum(len(_answers(prompt)) > 1 for prompt in asked)
    left_out = ", ".join(task.left_out[:MOST_LISTED]) + ", …" * (len(task.left_out) > MOST_LISTED)
    lines = [
        f"# {task.name}",
        "",
        f"{counted(task.n_prompts, 'prompt')}, written by Strata {__version__} as a task of lm-evaluation-harness and of lmms-eval.",
        "",
        f"- `exact_match`: the response is the answer, letter by letter{', or any of the accepted answers' if several else ''}. Strata's "
        "exact match compares tokens, which comes to the same unless a model writes special tokens inside of an answer, or one text in "
        "other tokens. lmms-eval takes blanks "
        "around the response away first.",
    ]
    if matches:
        lines.append(
            f"- `normalised_match`, `numeric_match`: Strata's own, through `{MATCHES}`; Strata must be installed there."
        )
    else:
        lines.append(
            "- `normalised_match`, `numeric_match` and choices by likelihood are not scored: no YAML can say them. Export with "
            "`matches` for the first two."
        )
    if any(prompt.choices for prompt in asked):
        lines.append(
            "- Prompts with choices are asked as they stand, and the answer's text is expected. Neither harness computes likelihoods "
            "with a picture."
        )
    if task.left_out:
        lines.append(f"- {counted(len(task.left_out), 'prompt')} without an answer left out: {left_out}.")
    lines += [
        "- Pictures are as Strata opens them. On a CPU Strata bounds an image to 256 vision tokens where the processor can; a harness does "
        "not, so large pictures may give other answers (`max_pixels=` in `--model_args` of lm_eval bounds them).",
        f"- Strata's tests run lm-evaluation-harness {TESTED}. lmms-eval, whose fields are those of 0.7.3, needs torchvision and is not "
        "run by them; its `huggingface` model runs in bfloat16.",
        "",
        "Leave `--apply_chat_template` out for a model that has no chat template. The first two lines are for the dense model, the others "
        "for the exported one:",
        "",
        "```sh",
        *task.commands,
        "```",
        "",
    ]
    return "\n".join(lines)

"""Train a bundled model on drawn pictures: resumable, logged, and never on a held-out example.

Pocket-VL starts from random weights; Pocket-VL Steps starts from those of Pocket-VL, with fresh optimisers and a schedule of its own.

Known: Muon on the matrices learns shapes, counting and digits several times faster than AdamW; with white as the zero of
the pixels (`build.IMAGE_MEAN`) colour is learned within the first hundreds of steps, which it was not with mean 0.5.
Not known: the effect of longer training; the recipe was not searched.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vlm_analysis.assets import asset
from vlm_analysis.files import write_atomically
from vlm_analysis.pocket.build import build_image_processor, build_model, build_tokenizer, save_pocket
from vlm_analysis.pocket.card import CURVE_FILE, RUN_FILE, hardware, write_card
from vlm_analysis.pocket.packing import PackedBatch, Packer, answer_logits, answers_right
from vlm_analysis.pocket.pictures import Bars, Picture, Shapes, WrittenSum
from vlm_analysis.pocket.reasoning import QuestionAndAnswer
from vlm_analysis.pocket.tasks import (
    DOMAINS,
    GENERAL,
    MATH,
    MONITOR_PER_DOMAIN,
    STEPS,
    TASKS,
    ask_about,
    content_key,
    draw_picture,
    make_examples,
    reserved_keys,
)

KINDS = (Shapes, Bars, WrittenSum)


@dataclass(frozen=True)
class Recipe:
    """All settings that decide the run beside the code; saved with each checkpoint.

    `deepstack` builds the model with DeepStack or without; `bfloat16` computes in bfloat16, which is slow on a CPU that
    has no units for it. `start` names the bundled model that the weights start from, "" for random ones. Of `steps_share`
    of the pictures up to two questions are asked first that are answered in steps; the pictures are drawn for the first of them, whose
    task is chosen by `steps_weights`. After `minutes` of computing the run ends, where it has
    not taken all `steps` by then: the rate falls to zero by the one or the other. `half` writes the weights as float16.
    """

    steps: int = 8000
    pictures: int = 64
    questions: int = 6
    most_tokens: int = 100
    kind_weights: tuple[float, float, float] = (0.5, 0.28, 0.22)
    muon_rate: float = 0.02
    adamw_rate: float = 2e-3
    warmup: int = 100
    decay_share: float = 0.4
    seed: int = 0
    deepstack: bool = True
    bfloat16: bool = True
    start: str = ""
    steps_share: float = 0.0
    steps_weights: dict[str, float] = field(default_factory=dict)
    minutes: float | None = None
    half: bool = False

    @property
    def domains(self) -> tuple[str, ...]:
        """Return the domains that are trained and watched."""
        return DOMAINS if self.steps_share else (GENERAL, MATH)


RECIPES = {
    "pocket-vl": Recipe(),
    "pocket-vl-steps": Recipe(
        steps=100_000,
        pictures=48,
        most_tokens=136,
        kind_weights=(0.48, 0.32, 0.2),
        muon_rate=0.01,
        adamw_rate=1e-3,
        warmup=50,
        decay_share=0.6,
        seed=1,
        start="pocket-vl",
        steps_share=0.75,
        steps_weights={
            "steps-kinds": 3,
            "steps-colours": 3,
            "steps-quarters": 1.5,
            "steps-bars": 1.5,
            "steps-difference": 1,
            "steps-range": 0.5,
            "steps-ends": 0.5,
            "steps-carry": 2,
        },
        minutes=84,
        half=True,
    ),
}
"""The recipe of each bundled model, by the name of its folder."""


def train_folder() -> Path:
    """Return the folder of checkpoints: `STRATA_TRAIN`, else in the user's cache folder; never in the work tree."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "strata-train"
    return Path(os.environ.get("STRATA_TRAIN", default))


def rate_at(step: int, recipe: Recipe, seconds: float = 0.0) -> float:
    """Return the learning-rate factor in [0, 1]: warm-up, constant, then linear to zero over the last `decay_share`.

    `seconds` is the computing so far, which counts where the recipe limits it.
    """
    decay_steps = max(1, int(recipe.steps * recipe.decay_share))
    factor = min(1.0, (step + 1) / recipe.warmup, (recipe.steps - step) / decay_steps)
    if recipe.minutes is not None:
        factor = min(factor, (1 - seconds / (60 * recipe.minutes)) / recipe.decay_share)
    return max(0.0, factor)


def training_pictures(step: int, recipe: Recipe) -> list[tuple[Any, list[tuple[str, str]]]]:
    """Return the pictures of one step with their questions; no (image, question) of a held-out or pack set is among them."""
    batch: list[tuple[Any, list[tuple[str, str]]]] = []
    number = 0
    while len(batch) < recipe.pictures:
        rng = Random(f"train/{recipe.seed}/{step}/{number}")
        number += 1
        if recipe.steps_share and rng.random() < recipe.steps_share:
            picture, asked = _picture_in_steps(rng, recipe)
        else:
            picture, asked = draw_picture(rng.choices(KINDS, recipe.kind_weights)[0], rng, reserved=False), []
        pairs = asked + [pair for _, pair in ask_about(picture, rng, recipe.questions)]
        if pairs:
            batch.append((picture.image, pairs))
    return batch


def _picture_in_steps(rng: Random, recipe: Recipe) -> tuple[Picture, list[QuestionAndAnswer]]:
    """Return a picture that one of the tasks in steps can ask about, drawn for it, with up to two such questions."""
    task = TASKS[rng.choices(list(recipe.steps_weights), list(recipe.steps_weights.values()))[0]]
    while True:
        picture = draw_picture(task.picture, rng, reserved=False)
        pair = task.ask(picture, rng)
        if pair is not None and content_key(picture.image, pair[0]) not in reserved_keys():
            others = [other for _, other in ask_about(picture, rng, 1, domains=(STEPS,)) if other[0] != pair[0]]
            return picture, [pair, *others]


def answer_loss(logits: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """Return the cross entropy with each token weighted by 1/sqrt(answer length), so that short answers count too."""
    losses = torch.nn.functional.cross_entropy(logits.float(), batch.targets, reduction="none")
    weights = torch.bincount(batch.answer).float().rsqrt()[batch.answer]
    return (losses * weights).sum() / weights.sum()


class Trainer:
    """A running training: model, optimisers and step, saved to and resumed from one folder."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe, self.step, self.seconds = folder, recipe, 0, 0.0
        self.model = build_model(recipe.seed, deepstack=recipe.deepstack).train()
        if recipe.start:
            self._take(load_file(asset(recipe.start, "model.safetensors")))
        self.packer = Packer(self.model, build_tokenizer(), build_image_processor())
        matrices: list[torch.nn.Parameter] = []
        rest: list[torch.nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            inside = ".layers." in name or ".blocks." in name or "merger" in name
            (matrices if inside and parameter.ndim == 2 else rest).append(parameter)
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(matrices, lr=recipe.muon_rate, weight_decay=0.01),
            "adamw": torch.optim.AdamW(rest, lr=recipe.adamw_rate, betas=(0.9, 0.98), weight_decay=0.0),
        }
        self.base_rates = {"muon": recipe.muon_rate, "adamw": recipe.adamw_rate}

    @property
    def is_over(self) -> bool:
        """Return whether all steps are taken, or the time for them is used up."""
        minutes = self.recipe.minutes
        return self.step >= self.recipe.steps or (minutes is not None and self.seconds >= 60 * minutes)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def resume(self) -> bool:
        """Continue from the checkpoint in the folder; False if there is none."""
        if not self.checkpoint.exists():
            return False
        with safe_open(self.checkpoint, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = json.loads(file.metadata()["run"])
        self.step, self.seconds = metadata["step"], metadata["seconds"]
        weights = {key.removeprefix("model/"): value for key, value in tensors.items() if key.startswith("model/")}
        self._take(weights)
        for name, optimiser in self.optimisers.items():
            state: dict[int, dict[str, torch.Tensor]] = defaultdict(dict)
            for key, value in tensors.items():
                if key.startswith(name + "/"):
                    _, index, field = key.split("/")
                    state[int(index)][field] = value
            optimiser.load_state_dict({"state": dict(state), "param_groups": optimiser.state_dict()["param_groups"]})
        return True

    def _take(self, weights: dict[str, torch.Tensor]) -> None:
        self.model.load_state_dict(weights, strict=False)  # the tied head is saved once

    def save(self) -> None:
        """Write the checkpoint: to a temporary name first, so that a kill leaves the last one intact."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model/{key}": value for key, value in self.model.state_dict().items() if key != "lm_head.weight"}
        for name, optimiser in self.optimisers.items():
            for index, state in optimiser.state_dict()["state"].items():
                tensors |= {f"{name}/{index}/{field}": value for field, value in state.items()}
        run = {"run": json.dumps(self.run())}
        contiguous = {key: value.contiguous() for key, value in tensors.items()}
        write_atomically(self.checkpoint, lambda part: save_file(contiguous, part, run))

    def run(self) -> dict[str, Any]:
        """Return the data on the run so far for the quality card."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        progress = {"step": self.step, "seconds": round(self.seconds), "hardware": hardware()}
        return {**progress, "parameters": f"{parameters:,}", "recipe": asdict(self.recipe)}

    def train_step(self) -> float:
        """Take one optimiser step and return its loss."""
        start = time.monotonic()
        factor = rate_at(self.step, self.recipe, self.seconds)
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = self.base_rates[name] * factor
        batch = self.packer.pack(training_pictures(self.step, self.recipe), most_tokens=self.recipe.most_tokens)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bfloat16):
            logits = answer_logits(self.model, batch)
        loss = answer_loss(logits, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers.values():
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.seconds += time.monotonic() - start
        return loss.item()

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Return the share of monitor answers reproduced exactly (teacher-forced), per task."""
        right: dict[str, list[bool]] = defaultdict(list)
        for domain in self.recipe.domains:
            examples = make_examples(domain, MONITOR_PER_DOMAIN, split="monitor")
            batch = self.packer.pack([(example.image, [(example.question, example.answer)]) for example in examples])
            with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bfloat16):
                matches = answers_right(answer_logits(self.model, batch).float(), batch)
            for example, is_right in zip(examples, matches.tolist(), strict=True):
                right[example.task].append(is_right)
        return {task: sum(marks) / len(marks) for task, marks in right.items()}

    def log(self, entry: dict[str, Any]) -> None:
        with (self.folder / CURVE_FILE).open("a") as file:
            file.write(json.dumps(entry) + "\n")


def train(assets: Path, *, recipe: Recipe | None = None, every: int = 200) -> None:
    """Train, or continue, in `train_folder()` and log each task's accuracy; weights so far are written to `assets`."""
    recipe = recipe or Recipe()
    trainer = Trainer(train_folder(), recipe)
    trainer.folder.mkdir(parents=True, exist_ok=True)
    begun = f"starting from {recipe.start or 'random weights'}"
    print(f"resuming at step {trainer.step}" if trainer.resume() else begun, flush=True)
    losses: list[float] = []
    while not trainer.is_over:
        losses.append(trainer.train_step())
        if trainer.step % every == 0 or trainer.is_over:
            shares = trainer.measure()
            trainer.log(
                {"step": trainer.step, "seconds": round(trainer.seconds), "loss": sum(losses) / len(losses), **shares}
            )
            trainer.save()
            publish(trainer, assets)
            print(_line(trainer.step, losses, shares), flush=True)
            losses.clear()
    publish(trainer, assets)
    write_card(assets)


def publish(trainer: Trainer, assets: Path) -> None:
    """Write the weights so far to `assets` as an ordinary checkpoint, with the curve beside them."""
    save_pocket(copy.deepcopy(trainer.model).half() if trainer.recipe.half else trainer.model, assets)
    shutil.copyfile(trainer.folder / CURVE_FILE, assets / CURVE_FILE)
    (assets / RUN_FILE).write_text(json.dumps(trainer.run(), indent=2) + "\n", "utf-8")


def _line(step: int, losses: list[float], shares: dict[str, float]) -> str:
    parts = " ".join(f"{task} {share:.2f}" for task, share in shares.items())
    return f"step {step} loss {sum(losses) / len(losses):.3f} {parts}"

"""Writes docs/conformance.md, and what the README shows of it: what every vision-language class of transformers does here.

Run `python -m tests.conformance` in the repository; every mark is a check that is run now.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import transformers

from vlm_analysis import PruneMask
from vlm_analysis.models.layers import locked_layers

from .build import N_LAYERS
from .checks import masks, text_inputs
from .folding import check_fold
from .image_rows import IMAGES
from .images import image_inputs, image_model
from .narrowing import check_narrow, narrow_mark
from .noise import NOISE
from .readme import README, TARGET, with_block
from .rows import ALONE, EXCEPTIONS, FAMILIES, KINDS, NOT_BUILT, NOTES, PRUNED, REFUSED
from .skipping import free_for_vision, skipping_mark
from .sweeping import check_sweep, prompts
from .test_conformance import CHECKS, model_of
from .test_skipping import test_vision_tokens_skip_layers
from .towers import check_tower

HEAD = """# Which models can be pruned

Every class that `AutoModelForImageTextToText` of transformers {version} knows, as a tiny model with random weights in float32 on a CPU.
Written by `python -m tests.conformance`; `tests/conformance/` holds the checks. `make test` runs those of a sample of
classes (`tests/conformance/sample.py`), `make slow` those of all others.

- **text**: the decoder layers are found, and each runs once and in order. **prune**: the pruned model's logits are those of the dense
  model with these layers skipped, to the last bit, and the dense model is unchanged. **decode**: greedy decoding with a cache and without
  writes the same tokens. **reload**: saved and loaded by plain transformers, the logits are equal to the last bit. **locks**: how many of
  the {n_layers} layers cannot be dropped; they are refused with the reason.
- **reload** is a real export: `export_checkpoint` writes the folder, plain `from_pretrained` opens it, and the processor's files come
  along.
- **image**: prune, decode and reload again with a picture in the prompt, made by the class's own processor; ○ where that needs
  torchvision, with noise of the shape that it would hand on.
- **sweep**: the dense model, each layer left out and two at once, swept together, have the scores that each has alone, to the last bit:
  without a picture, with one, and with two where the class takes two and its processor runs here.
- **vision**: with vision tokens absent from layers (late entry, early exit, all) or frozen in them, the logits of text are those of rows
  taken out of the layers by hand, within 1e-5: masked and sliced, with one picture and two, with a cache, and in a batch padded on the
  left. A number: so many of the {n_layers} layers can be skipped; the others, or all (–), are refused with the reason.
- **fold**: a repair in closed form can fold a map into the layer before the first one that may go, or the reason why not: norm (a norm or a
  gate stands between its last linear module and the stream), experts (it routes tokens to them), streams (several for each token), asleep
  (the layer does not run without a picture). [Recovery](recovery.md) says more.
- **width**: half of the MLP neurons and of the attention groups are taken out, by cut weights and by zeros; logits are those of a model in
  float64 (with experts: float32) whose projections into the stream do not see what goes, within 1e-5, and where **decode** holds it does
  for these too. Two numbers: so many of the {n_layers} layers can lose neurons / groups; the others, or all (–), are refused with the
  reason. [Width](width.md) says what is exported.
- **tower**: of four layers in the vision encoder, each that is not locked, the first two of them and all but the first are left out;
  logits with a picture are those of the dense model in which these layers hand on what they are given, to the last bit, and layers that
  nothing reads change none. A number: so many of the four can go; the others are refused with the reason. Exported and loaded as in
  **reload**, logits are equal to the last bit. –: not tried, or there is no such encoder. [Tower](tower.md) says what moves along.
- A layer through which the picture comes in is the exception to **prune**: DeepStack adds vision features after places in the list of
  layers, and without that layer they move to the next one. What is evaluated is what is exported, there too.
- ✓ checked; ✗ does not hold, and not for the dense model either; – not checked. What cannot be pruned is refused with the reason.

{green} of {all} classes hold in every check, {seeing} of them with an image too and {shown} with noise for one; {refused} are refused;
{other} fail in one check or cannot be built here, as the remark says. Of the {pruned} that are pruned, {wide} can lose MLP neurons and
attention groups in all layers, {partly} only some of these, and {stiff} none.

| class | text | image | prune | decode | reload | sweep | vision | fold | width | tower | locks | remark |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    rows = [row(kind) for kind in sorted(KINDS, key=lambda kind: (KINDS[kind].lower(), kind))]
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(head() + "\n".join(rows) + "\n", "utf-8")
    README.write_text(with_block(README.read_text("utf-8"), TARGET.read_text("utf-8")), "utf-8")
    print(TARGET.read_text("utf-8"))


def head() -> str:
    """Return what stands above the table, with the numbers."""
    failing = {kind for kind, _ in EXCEPTIONS}
    green, widths = set(PRUNED) - failing, Counter(map(narrow_mark, PRUNED))
    return HEAD.format(
        version=transformers.__version__,
        n_layers=N_LAYERS,
        green=len(green),
        all=len(KINDS),
        seeing=len(green & IMAGES.keys()),
        shown=len(green & NOISE.keys()),
        refused=len(REFUSED),
        other=len(KINDS) - len(green) - len(REFUSED),
        pruned=len(PRUNED),
        wide=widths["✓"],
        partly=len(PRUNED) - widths["✓"] - widths["–"],
        stiff=widths["–"],
    )


def row(kind: str) -> str:
    """Return a class's row of the table; its checks are run."""
    name = f"{FAMILIES[kind]}: `{KINDS[kind]}` ({kind})" if kind in FAMILIES else f"`{KINDS[kind]}` ({kind})"
    if kind in REFUSED:
        return f"| {name} | – | – | – | – | – | – | – | – | – | – | – | refused: {REFUSED[kind]} |"
    if kind in NOT_BUILT:
        return f"| {name} | – | – | – | – | – | – | – | – | – | – | – | not built: {NOT_BUILT[kind]} |"
    marks = {check: mark(kind, check) for check in CHECKS}
    remarks = [reason for (one, _), reason in EXCEPTIONS.items() if one == kind]
    remarks += [f"the decoder alone: its vision tower needs {ALONE[kind]}"] if kind in ALONE else []
    remarks += ["noise for an image: its processor needs torchvision"] if kind in NOISE else []
    remarks += [NOTES[kind]] if kind in NOTES else []
    pruned = "✓" if marks["prune"] == marks["dense"] == "✓" else "✗"
    locks = len(locked_layers(model_of(kind))) or "none" if marks["locks"] == "✓" else "✗"
    cells = (
        name,
        marks["layers"],
        image_mark(kind),
        pruned,
        marks["decode"],
        marks["reload"],
        sweep_mark(kind),
        vision_mark(kind),
        check_fold(kind, model_of(kind)),
        check_narrow(kind, model_of(kind)),
        check_tower(kind),
        locks,
        "; ".join(remarks),
    )
    return f"| {' | '.join(map(str, cells))} |"


def image_mark(kind: str) -> str:
    """Return whether a class holds with an image in the prompt, where that can be tried; what it cannot show is marked elsewhere."""
    if kind not in IMAGES and kind not in NOISE:
        return "–"
    model, inputs = image_model(kind), image_inputs(kind)
    for check in {"prune", "dense", "decode", "reload"} - {check for one, check in EXCEPTIONS if one == kind}:
        with tempfile.TemporaryDirectory() as folder:
            CHECKS[check](model, inputs, Path(folder), kind, masks(model))
    return "✓" if kind in IMAGES else "○"


def sweep_mark(kind: str) -> str:
    """Return the mark of a class on which sweeping equals evaluating; where it does not, this fails."""
    for n_images, inputs in prompts(kind):
        with tempfile.TemporaryDirectory() as folder:
            check_sweep(kind, image_model(kind) if n_images else model_of(kind), n_images, inputs, Path(folder))
    return "✓"


def vision_mark(kind: str) -> str:
    """Return whether vision tokens skip layers of a class, or how many layers; where that does not hold, this fails."""
    free = free_for_vision(kind)
    if free:
        test_vision_tokens_skip_layers(kind)
    return skipping_mark(free)


def mark(kind: str, check: str) -> str:
    """Return what a check says; a check that may fail must fail on the dense model too, or the table is wrong."""
    model, inputs = model_of(kind), text_inputs(kind)
    with tempfile.TemporaryDirectory() as folder:
        if (kind, check) not in EXCEPTIONS:
            CHECKS[check](model, inputs, Path(folder), kind, masks(model))
            return "✓"
        try:
            CHECKS[check](model, inputs, Path(folder), kind, [PruneMask(N_LAYERS)])
        except AssertionError:
            return "✗"
    raise SystemExit(f"{kind} now passes {check}: take it out of EXCEPTIONS in rows.py.")


if __name__ == "__main__":
    main()

"""What was learnt by fine-tuning as an adapter of its own, as peft writes one: small, for the checkpoint of the edit it was learnt on."""

from __future__ import annotations

from pathlib import Path

import torch

from vlm_analysis.edits.edit import Edit, check_edit
from vlm_analysis.edits.kinds.adapt import Adapt
from vlm_analysis.errors import ExportError
from vlm_analysis.export.target import check_target, staged
from vlm_analysis.models.layers import find_decoder_path
from vlm_analysis.models.load import LoadedModel

WEIGHTS = "adapter_model.safetensors"


def export_adapter(loaded: LoadedModel, edit: Edit, folder: Path, base: Path | str | None = None) -> Path:
    """Write the low-rank updates of an edit as a folder for peft and `load_model`; return the folder.

    It belongs on the checkpoint of what the updates were learnt on, whose layers are numbered anew: on that of the mask, where a mask was
    tuned. Merged there by `load_model`, it has the weights of the edited model to the last bit.

    Args:
        loaded: the dense model.
        edit: an edit with an `Adapt`.
        folder: a new or empty folder.
        base: the exported checkpoint of what it was learnt on, or its Hub id; the source of the dense model where that is the base.

    Raises:
        ExportError: there is no `Adapt`, no base, or the folder is not empty or cannot be written.
        EditError: the edit does not fit the model.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    check_edit(edit, loaded.n_layers)
    adapt = next((change for change in edit.changes if isinstance(change, Adapt)), None)
    if adapt is None:
        raise ExportError(
            f"There is no adapter to export: expected an edit with low-rank updates, got one that {edit.words()}. Tune it with `finetune`."
        )
    if base is None and not edit.before(adapt).is_dense:
        raise ExportError(
            f"The adapter cannot be exported: expected the checkpoint of what it was learnt on as `base`, a model that "
            f"{edit.before(adapt).words()}, got none. Export that first."
        )
    names, factors = _names(loaded, edit, adapt), adapt.tensors.read()
    rank = next(values.shape[0] for name, values in factors.items() if name.endswith(".A"))
    config = LoraConfig(
        r=rank,
        lora_alpha=adapt.scale * rank,  # type: ignore[arg-type]  # a whole number is not needed
        target_modules=sorted(names.values()),
        base_model_name_or_path=str(loaded.source if base is None else base),
        inference_mode=True,
    )
    weights = {
        f"base_model.model.{place}.lora_{part}.weight": torch.tensor(factors[f"{name}.{part}"])
        for name, place in names.items()
        for part in "AB"
    }
    with staged(check_target(Path(folder))) as part:
        config.save_pretrained(str(part))
        save_file(weights, part / WEIGHTS, {"format": "pt"})
    return Path(folder)


def _names(loaded: LoadedModel, edit: Edit, adapt: Adapt) -> dict[str, str]:
    """Return by the name of each module in the dense model that in the edited one."""
    path, _ = find_decoder_path(loaded.model)
    position = {str(layer): place for place, (layer, _) in enumerate(edit.steps.layers)}
    parts = {name: name.partition(".") for name in adapt.modules}
    return {
        name: f"{path}.{position[first]}.{inner}" if first in position else name
        for name, (first, _, inner) in parts.items()
    }

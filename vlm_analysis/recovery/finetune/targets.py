"""Which linear layers of an edited model are tuned, and under which names an `Adapt` knows them.

The projector is found by watching one pass: linear layers outside of the decoder and of the tower's own layers that run after the tower's
first layer. The tower's layers are the list that runs first, and those of the same class. A name would not do: what merges features is
part of the tower in some models, and beside it in others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from torch import nn

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import EditError
from vlm_analysis.models.layers import find_decoder_path


def find_targets(model: nn.Module, edit: Edit, targets: str, run: Callable[[], object]) -> dict[str, str]:
    """Return the linear layers to tune: by the name of each in the edited model the one that an `Adapt` knows it by.

    Args:
        model: the edited model, a view.
        edit: the edit that made it.
        targets: a key of `tunings.TARGETS`.
        run: runs a prompt with an image.

    Raises:
        EditError: there is none.
    """
    path, layers = find_decoder_path(model)
    numbers = [layer for layer, _ in edit.steps.layers]
    shared = Counter(id(module.weight) for module in model.modules() if isinstance(module, (nn.Linear, nn.Embedding)))

    def can_be_tuned(module: nn.Module) -> bool:
        return type(module) is nn.Linear and shared[id(module.weight)] == 1

    if targets == "projector":
        found = {name: name for name, module in _of_projector(model, layers, run) if can_be_tuned(module)}
    else:
        chosen = numbers if targets == "decoder" else beside_cuts(edit)
        found = {
            f"{path}.{position}.{name}": f"{number}.{name}"
            for position, (number, layer) in enumerate(zip(numbers, layers, strict=True))
            if number in chosen
            for name, module in layer.named_modules()
            if can_be_tuned(module)
        }
    if not found:
        where = {"partners": "no layer is cut" if not edit.gone else "its layers have none"}.get(targets, "it has none")
        raise EditError(
            f"{type(model).__name__} cannot be tuned so: expected linear layers to update ({targets}), got none, as {where}. "
            "Choose another fine-tuning."
        )
    return found


def beside_cuts(edit: Edit) -> tuple[int, ...]:
    """Return the layers that are left right before and right after each run of layers that are not, ascending.

    >>> from vlm_analysis import PruneMask
    >>> beside_cuts(PruneMask(12, [0, 4, 5, 8]))
    (1, 3, 6, 7, 9)
    """
    gone = set(edit.gone)
    left = [layer for layer in range(edit.n_layers) if layer not in gone]
    return tuple(layer for layer in left if {layer - 1, layer + 1} & gone)


def _of_projector(
    model: nn.Module, decoder_layers: nn.ModuleList, run: Callable[[], object]
) -> Iterator[tuple[str, nn.Module]]:
    """Yield the linear layers that ran between the tower's first layer and the decoder, with their names."""
    decoder = {id(module) for module in decoder_layers.modules()}
    outside = [(name, module) for name, module in model.named_modules() if id(module) not in decoder]
    lists = [module for _, module in outside if isinstance(module, nn.ModuleList) and len(module)]
    ran: list[nn.Module] = []
    with ExitStack() as stack:
        for module in (*(module for _, module in outside), decoder_layers[0]):
            stack.callback(module.register_forward_pre_hook(lambda module, _: ran.append(module)).remove)
        run()
    order = {id(module): place for place, module in reversed(list(enumerate(ran)))}  # where each ran first
    towers = [one for one in lists if id(one[0]) in order]
    if not towers:
        return
    tower = min(towers, key=lambda one: order[id(one[0])])
    inside = {id(inner) for one in lists for layer in one if type(layer) is type(tower[0]) for inner in layer.modules()}
    for name, module in outside:
        is_between = order[id(tower[0])] < order.get(id(module), -1) < order[id(decoder_layers[0])]
        if is_between and isinstance(module, nn.Linear) and id(module) not in inside:
            yield name, module

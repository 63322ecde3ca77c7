"""Where a decoder layer hides its MLP neurons and attention groups, and why those of some layers cannot be cut.

A neuron is a row of the gate and of the up-projection with its column of the down-projection; an attention group is a key-value head with
its query heads. A layer is read by the names and shapes of its modules, which a table lists. Whatever else stands in such a module, as a
norm over all neurons, is named as the reason why it is left whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from vlm_analysis.model_info import LayerWidth

_MLPS: tuple[
    tuple[tuple[str, ...], str], ...
] = (  # modules with a row for each neuron, and that with a column for each
    (("gate_proj", "up_proj"), "down_proj"),
    (("up_proj",), "down_proj"),
    (("gate_up_proj",), "down_proj"),  # gate rows, then up rows
    (("w1", "w3"), "w2"),
    (("fc1",), "fc2"),
    (("dense_h_to_4h",), "dense_4h_to_h"),
)
_ATTENTIONS = tuple(
    (inner, out) for inner in (("q_proj", "k_proj", "v_proj"), ("qkv_proj",)) for out in ("o_proj", "out_proj")
)
_GATES = ("g_proj", "gate_proj")  # of an attention: rows for each query head
_HALVES = "gate_up_proj"
_N_QUERY_HEADS, _N_KEY_HEADS = ("num_heads", "num_attention_heads"), ("num_key_value_heads",)
_PACKED = "its weights are packed, quantised or no plain linear modules"
_UNKNOWN = "it has no projections of known names"
_EXPERTS = "it routes tokens to experts"
PART_NAMES = {
    "attention": ("self_attn", "self_attention", "attention", "attn"),
    "mlp": ("mlp", "feed_forward", "ffn", "block_sparse_moe"),
}
"""What layers call the module of a part."""


@dataclass(frozen=True)
class Cut:
    """Where the units of a part stand in a weight: unit u has the `size` rows (dim 0) or columns (dim 1) from `start + u * size` on."""

    module: str
    dim: int
    start: int
    size: int


@dataclass(frozen=True)
class Part:
    """The MLP or the attention of a layer, of `n` neurons or groups.

    Attributes:
        holder: name of the module inside of the layer; "" for the layer itself.
        cuts: all rows and columns of its projections, by units.
        head_dim: of an attention, numbers of a key-value head; 0 of an MLP.
        n_heads: of an attention, query heads; 0 of an MLP.
        sizes: attributes of the module that tell how many there are, with the number for each unit.
    """

    holder: str
    n: int
    cuts: tuple[Cut, ...]
    head_dim: int = 0
    n_heads: int = 0
    sizes: tuple[tuple[str, int], ...] = ()

    def kept(self, units: Iterable[int]) -> Iterator[tuple[str, int, list[int]]]:
        """Yield for each projection its name, 0 for rows or 1 for columns, and the numbers of those that stay, ascending."""
        numbers = list(units)
        for module, dim in dict.fromkeys((cut.module, cut.dim) for cut in self.cuts):
            cuts = [cut for cut in self.cuts if (cut.module, cut.dim) == (module, dim)]
            yield (
                module,
                dim,
                [cut.start + unit * cut.size + row for cut in cuts for unit in numbers for row in range(cut.size)],
            )


def layer_widths(
    model: nn.Module, layers: Iterable[nn.Module], *, shares_keys: bool, crossing: Collection[int]
) -> tuple[LayerWidth, ...]:
    """Return what each decoder layer can keep, or why it stays whole.

    Args:
        model: the model, in which a weight may be used twice.
        layers: its decoder layers.
        shares_keys: whether layers use keys and values of others.
        crossing: layers whose keys and values come from the image.
    """
    uses = Counter(id(weight) for module in model.modules() for weight in module._parameters.values())
    found = []
    for number, layer in enumerate(layers):
        attention: Part | str
        mlp, attention = find_mlp(layer), find_attention(layer)
        if shares_keys and isinstance(attention, Part):
            attention = "layers share keys and values, so that what one leaves out others would lack"
        if number in crossing:
            attention = "its keys and values come from the image"
        parts = [one if isinstance(one, str) else _shared(layer, one, uses) or one for one in (mlp, attention)]
        (n, size, why), (n_groups, group_size, why_not) = (_counted(layer, part) for part in parts)
        whole = (n_parameters(part_of(layer, part)) for part in ("mlp", "attention"))
        found.append(LayerWidth(n, n_groups, size, group_size, why, why_not, *whole))
    return tuple(found)


def find_mlp(layer: nn.Module) -> Part | str:
    """Return the MLP of a layer, or why its neurons cannot be cut."""
    if has_experts(layer):
        return _EXPERTS
    for name, module in layer.named_modules():
        for inner, out in _MLPS:
            if not all(isinstance(getattr(module, one, None), nn.Module) for one in (*inner, out)):
                continue
            if getattr(module, "q_proj", None) is not None:
                continue
            reason = _unfit(module, (*inner, out), 0 if name else None)
            if not reason and getattr(module, "activation_sparsity", 0):
                reason = "its activation chooses neurons by statistics over all of them"
            return reason or _mlp(name, module, inner, out)
    return _UNKNOWN


def _mlp(name: str, module: Any, inner: tuple[str, ...], out: str) -> Part | str:
    n = getattr(module, out).in_features
    prefix = f"{name}." if name else ""
    cuts = [Cut(f"{prefix}{one}", 0, 0, 1) for one in inner]
    if inner == (_HALVES,):
        cuts.append(Cut(f"{prefix}{_HALVES}", 0, n, 1))
    if any(getattr(module, one).out_features != n * (2 if one == _HALVES else 1) for one in inner):
        return _UNKNOWN
    sizes = (("intermediate_size", 1),) if getattr(module, "intermediate_size", None) == n else ()
    return Part(name, n, (*cuts, Cut(f"{prefix}{out}", 1, 0, 1)), sizes=sizes)


def find_attention(layer: nn.Module) -> Part | str:
    """Return the attention of a layer, or why its groups cannot be cut."""
    if any(isinstance(module, _ConvNd) for module in layer.modules()):
        return "it passes tokens on through a state or a convolution, in which there are no groups"
    if any(hasattr(module, "kv_b_proj") for module in layer.modules()):
        return "its keys and values are made of one packed vector"
    for name, module in layer.named_modules():
        for inner, out in _ATTENTIONS:
            if not all(isinstance(getattr(module, one, None), nn.Module) for one in (*inner, out)):
                continue
            head_dim = getattr(module, "head_dim", None)
            if not isinstance(head_dim, int) or head_dim < 1:
                return "the size of its heads is not known"
            gates = tuple(one for one in _GATES if isinstance(getattr(module, one, None), nn.Linear))
            reason = _unfit(module, (*inner, *gates, out), head_dim)
            return reason or _attention(name, module, inner, gates, out)
    return _UNKNOWN


def _attention(name: str, module: Any, inner: tuple[str, ...], gates: tuple[str, ...], out: str) -> Part | str:
    head_dim, columns, prefix = module.head_dim, getattr(module, out).in_features, f"{name}."
    n_heads = columns // head_dim
    if inner == ("qkv_proj",):  # queries, keys, values, as in Phi
        n = (module.qkv_proj.out_features // head_dim - n_heads) // 2
        rows = {"qkv_proj": (n_heads + 2 * n) * head_dim}
    else:
        n = module.k_proj.out_features // head_dim
        rows = {"k_proj": n * head_dim, "v_proj": n * head_dim}
    if n < 1 or n_heads % n or columns != n_heads * head_dim:
        return "its heads do not make groups"
    if any(getattr(module, one).out_features != size for one, size in rows.items()):
        return "its keys and values are of several sizes"
    query = columns // n
    if inner == ("qkv_proj",):
        sizes = ((0, query), (columns, head_dim), (columns + n * head_dim, head_dim))
        cuts = [Cut(f"{prefix}qkv_proj", 0, start, size) for start, size in sizes]
    else:
        cuts = [Cut(f"{prefix}{one}", 0, 0, head_dim) for one in ("k_proj", "v_proj")]
    for one in (*(("q_proj",) if len(inner) == 3 else ()), *gates):
        if getattr(module, one).out_features % n_heads:
            return f"the rows of its {one} are of no heads"
        cuts.append(Cut(f"{prefix}{one}", 0, 0, getattr(module, one).out_features // n))
    told = [(one, n_heads // n) for one in _N_QUERY_HEADS if getattr(module, one, None) == n_heads]
    told += [(one, 1) for one in _N_KEY_HEADS if getattr(module, one, None) == n]
    return Part(name, n, (*cuts, Cut(f"{prefix}{out}", 1, 0, query)), head_dim, n_heads, tuple(told))


def _unfit(module: nn.Module, names: Sequence[str], head_dim: int | None) -> str:
    """Return why a module's projections cannot be cut, "" where they can; `head_dim` None where others stand beside them."""
    if not all(is_plain(getattr(module, name)) for name in names):
        return _PACKED
    if head_dim is None:
        return ""
    for name, weight in module.named_parameters():
        if name.partition(".")[0] not in names and tuple(weight.shape) != (head_dim,):
            return f"its {name.rpartition('.')[0] or name} has numbers for all of it"
    return ""


def _shared(layer: nn.Module, part: Part, uses: Counter[int]) -> str:
    names = dict.fromkeys(cut.module for cut in part.cuts)
    twice = [name for name in names if uses[id(layer.get_submodule(name)._parameters["weight"])] > 1]
    return f"the weight of {twice[0]} is shared with another module" if twice else ""


def _counted(layer: nn.Module, part: Part | str) -> tuple[int, int, str]:
    """Return the number of units of a part, the parameters of each, and why it stays whole."""
    if isinstance(part, str):
        return 0, 0, part
    parameters = 0
    for cut in part.cuts:
        module: Any = layer.get_submodule(cut.module)
        parameters += cut.size * (module.out_features if cut.dim else module.in_features + (module.bias is not None))
    return part.n, parameters, ""


def part_of(layer: nn.Module, part: str) -> nn.Module | None:
    """Return the module of a layer that is its "attention" or its "mlp"; None where there is none, or several."""
    found = [module for name, module in layer.named_children() if name in PART_NAMES[part]]
    return found[0] if len(found) == 1 else None


def n_parameters(module: nn.Module | None) -> int:
    """Return the numbers in a module; 0 of none."""
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def is_plain(module: nn.Module) -> bool:
    """Return whether a module is linear, with a weight of numbers and the forward of torch."""
    return (
        isinstance(module, nn.Linear)
        and type(module).forward is nn.Linear.forward
        and module.weight.is_floating_point()
    )


def has_experts(layer: nn.Module) -> bool:
    """Return whether a layer holds several modules of a kind to choose from, or weights packed along a third axis."""
    for module in layer.modules():
        if isinstance(module, nn.ModuleList) and len(module) > 1:
            return True
        if not isinstance(module, _ConvNd) and any(
            parameter.ndim > 2 and min(parameter.shape) > 1 for parameter in module.parameters(recurse=False)
        ):
            return True
    return False

"""Find the layers of a model's vision encoder (its tower), what reads their outputs, and which of them should or must stay.

They are found by structure: a list of modules with attention, outside of the decoder layers, whose length the configuration of the vision
encoder gives as its number of layers. What reads them is named in the configuration: by a number of a hidden state (`vision_feature_layer`
of LLaVA: -2 is the input of the last layer) or of a layer (`deepstack_visual_indexes` of Qwen3-VL). Where these numbers move with dropped
layers is said here too (`fit_tower`). A list of numbers that is not known is a reason to leave the tower whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from vlm_analysis.model_info import TowerInfo
from vlm_analysis.models.widths import n_parameters

_COUNTS = ("num_hidden_layers", "depth", "num_layers", "n_layers")  # what configurations call the number of layers
_STATES = ("vision_feature_layer", "vision_feature_layers", "spatial_vision_layer")
_PAIRS = "deepstack_layer_map"  # pairs of a hidden state of the tower and a decoder layer
_FROM_LAYERS = ("molmo2_adapter",)  # configurations whose `vision_feature_layer` counts layers, not hidden states
_OUTPUTS = {  # layers whose outputs are read beside that of the last one
    "deepstack_visual_indexes": "DeepStack: its output goes to the decoder by a module of its own",
    "intermediate_layers_indices": "its output stands beside that of the last layer in what the decoder sees",
}
_KINDS = {
    "fullatt_block_indexes": "full attention: the layers around it see windows of the picture only",
    "global_attn_indexes": "global attention: the layers around it see windows of the picture only",
}
_INSERT = "insert_layer_id"  # the layer behind which tokens are merged
_NUMBERS = ("_indexes", "_indices", "_idxs", "_layers")  # suffixes of lists of layer numbers
# Encoders whose last hidden state is the output of the last layer as it is, also where a norm follows: there, all layers behind what is
# read can go. `tests/conformance/test_tower_column.py` tries it.
_PLAIN_ENDS = ("clip_vision_model", "siglip_vision_model", "idefics3_vision", "molmo2_vision")


@dataclass(frozen=True)
class TowerLayers:
    """The layers of a vision encoder.

    Attributes:
        path: dotted name of their list in the model.
        layers: the list, in running order.
        config: of the encoder.
        count: the setting with their number.
    """

    path: str
    layers: nn.ModuleList
    config: Any
    count: str


def with_parts(config: Any) -> list[Any]:
    """Return a configuration and those nested in it."""
    parts = [value for value in vars(config).values() if hasattr(value, "get_text_config")]
    return [config, *(inner for part in parts for inner in with_parts(part))]


def find_tower(model: nn.Module, decoder: nn.ModuleList) -> TowerLayers | str:
    """Return the layers of the model's vision encoder, or why there are none that can be dropped.

    Args:
        model: a transformers model.
        decoder: its decoder layers.
    """
    of_decoder = {id(module) for module in decoder.modules()}
    kinds = {part.model_type for config in _vision_configs(model.config) for part in with_parts(config)}
    configs: dict[str, Any] = {}  # by the name of a module, that of the nearest one around it
    found: list[TowerLayers] = []
    for path, module in model.named_modules():
        around = path.rpartition(".")[0]
        config = configs[path] = getattr(module, "config", None) or configs.get(around)
        if not isinstance(module, nn.ModuleList) or id(module) in of_decoder or not _attend(module):
            continue
        if getattr(config, "model_type", None) not in kinds or any(path.startswith(f"{one.path}.") for one in found):
            continue
        count = next((name for name in _COUNTS if name in vars(config)), "")
        if count and getattr(config, count) == len(module):
            found.append(TowerLayers(path, module, config, count))
    if len(found) > 1:
        return f"it has several vision encoders ({', '.join(one.path for one in found[:3])})"
    return found[0] if found else "it has no vision encoder with a list of layers"


def layers_of_tower(model: nn.Module, decoder: nn.ModuleList) -> list[nn.Module]:
    """Return the layers of the model's vision encoder that `tower_info` tells; none where none can be dropped."""
    tower = find_tower(model, decoder)
    return [] if isinstance(tower, str) or tower_info(model, decoder).missing else list(tower.layers)


def given_to(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the state that a layer of a vision encoder is given, from what it is called with."""
    return args[0] if args else kwargs.get("hidden_states", kwargs.get("hidden_state"))


def tower_info(model: nn.Module, decoder: nn.ModuleList) -> TowerInfo:
    """Return the number of layers of a model's vision encoder, and which stay, with the reasons."""
    tower = find_tower(model, decoder)
    if isinstance(tower, str):
        return TowerInfo(0, missing=tower)
    if reason := _unknown(tower):
        return TowerInfo(0, missing=reason)
    n_layers = len(tower.layers)
    read = states_read(model.config, tower)
    last = max(read, default=n_layers)
    protected = {0: "first layer: it turns patches into the stream every other layer expects"}
    if last:
        _say(protected, last - 1, "last layer that is read: what the decoder sees is its output")
    for name, reason in _KINDS.items():
        for layer in getattr(tower.config, name, None) or ():
            if layer < n_layers:
                _say(protected, layer, reason)
    return TowerInfo(
        n_layers,
        tuple(n_parameters(layer) for layer in tower.layers),
        dict(sorted(protected.items())),
        _locked(model.config, tower, last),
        tuple(range(last, n_layers)),
    )


def states_read(config: Any, tower: TowerLayers) -> list[int]:
    """Return which hidden states of the tower are read, ascending: 0 is the input of its first layer, n the output of its n-th one.

    Empty where the configuration names none, as then the last one is read.
    """
    n_layers, read = len(tower.layers), set()
    for part, name, value in _settings(with_parts(config)):
        read |= {_state(number, n_layers, part) for number in _numbers(name, value)}
    return sorted(state for state in read if 0 <= state <= n_layers)


def fit_tower(configs: Iterable[Any], tower: TowerLayers, kept: Sequence[int]) -> dict[str, tuple[Any, Any]]:
    """Fit configurations and those nested in them to a tower of the layers `kept`, in place.

    Args:
        configs: of the whole model and of its modules; one that has no settings of the tower stays as it is.
        tower: with all its layers.
        kept: ascending.

    Returns:
        Of each setting that changed its values before and after, by name.
    """
    n_layers, changed = len(tower.layers), dict[str, tuple[Any, Any]]()
    parts = list({id(part): part for config in configs for part in with_parts(config)}.values())

    def change(part: Any, name: str, new: Any) -> None:
        changed[name] = getattr(part, name), new
        setattr(part, name, new)

    for part, name, value in list(_settings(parts)):
        change(part, name, _moved_states(part, name, value, n_layers, kept))
    for part in parts:
        if getattr(part, _INSERT, None) in kept:
            change(part, _INSERT, kept.index(getattr(part, _INSERT)))
        if part.model_type != tower.config.model_type or getattr(part, tower.count, None) != n_layers:
            continue
        for name, value in list(vars(part).items()):
            if (new := _cut(name, value, n_layers, kept)) is not value:
                change(part, name, new)
        change(part, tower.count, len(kept))
    return changed


def _vision_configs(config: Any) -> Iterator[Any]:
    for part in with_parts(config):
        vision = vars(part).get("vision_config")
        if hasattr(vision, "get_text_config"):
            yield vision


def _attend(layers: nn.ModuleList) -> bool:
    """Return whether these are layers of one kind, some with attention."""
    if len({type(layer) for layer in layers}) != 1:
        return False
    return any("att" in name.lower() for layer in layers for name, _ in layer.named_modules())


def _say(reasons: dict[int, str], layer: int, reason: str) -> None:
    reasons[layer] = f"{reasons[layer]}; {reason}" if layer in reasons else reason


def _unknown(tower: TowerLayers) -> str:
    """Return why the configuration of the tower cannot be cut: a list of layer numbers whose meaning is not known."""
    known = {*_STATES, *_OUTPUTS, *_KINDS, "summary_idxs"}  # the last counts tokens
    for name, value in vars(tower.config).items():
        numbers = value if isinstance(value, (list, tuple)) and name.endswith(_NUMBERS) and name not in known else ()
        if numbers and all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
            return f"its configuration has a list of numbers, {name!r}, that may be of layers of the vision encoder"
    return ""


def _locked(config: Any, tower: TowerLayers, last: int) -> dict[int, str]:
    n_layers, locked = len(tower.layers), dict[int, str]()
    for name, reason in _OUTPUTS.items():
        locked |= {layer: reason for layer in getattr(tower.config, name, None) or () if layer < n_layers}
    for part in with_parts(config):
        layer = getattr(part, _INSERT, None)
        if isinstance(layer, int) and 0 <= layer < n_layers:
            locked[layer] = "tokens are merged behind it, as the configuration says by its number"
    if last < n_layers and tower.config.model_type not in _PLAIN_ENDS:
        locked.setdefault(
            n_layers - 1, "nothing reads its output, but without it a norm may run over what is read instead"
        )
    return dict(sorted(locked.items()))


def _settings(parts: Iterable[Any]) -> Iterator[tuple[Any, str, Any]]:
    """Yield each setting that names hidden states of the tower: its configuration, name and value."""
    for part in parts:
        for name in (*_STATES, _PAIRS):
            if vars(part).get(name) is not None:
                yield part, name, vars(part)[name]


def _numbers(name: str, value: Any) -> list[int]:
    if name == _PAIRS:
        return [number for number, _ in value]
    return [value] if isinstance(value, int) else list(value)


def _state(number: int, n_layers: int, part: Any) -> int:
    """Return which hidden state a number of a configuration names, from 0 on."""
    if number < 0:
        return n_layers + 1 + number
    return number + 1 if part.model_type in _FROM_LAYERS else number


def _moved_states(part: Any, name: str, value: Any, n_layers: int, kept: Sequence[int]) -> Any:
    """Return the setting for a tower of the layers `kept`: each hidden state is that behind the kept ones of the layers before it."""

    def moved(number: int) -> int:
        state = sum(layer < _state(number, n_layers, part) for layer in kept)
        from_layers = part.model_type in _FROM_LAYERS
        if number < 0 or (from_layers and state == 0):
            return state - len(kept) - 1
        return state - 1 if from_layers else state

    if name == _PAIRS:
        return [(moved(number), layer) for number, layer in value]
    return moved(value) if isinstance(value, int) else type(value)(moved(number) for number in value)


def _cut(name: str, value: Any, n_layers: int, kept: Sequence[int]) -> Any:
    """Return a setting of the tower's own configuration, cut to the layers `kept`; the same object where it does not change."""
    if not isinstance(value, (list, tuple)) or name in _STATES:
        return value
    if name in _OUTPUTS or name in _KINDS:
        return type(value)(kept.index(layer) for layer in value if layer in kept)
    if len(value) == n_layers and "layer" in name:
        return type(value)(value[layer] for layer in kept)
    return value

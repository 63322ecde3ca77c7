"""ModelInfo: the model that a saved item belongs to. Locks: which of its layers stay, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vlm_analysis.errors import EditError
from vlm_analysis.guard.schema import fields, listed, maybe, table, text, whole
from vlm_analysis.words import brief, counted, some_of

MOST_LAYERS = 10_000
_WIDTH = fields(
    {
        **dict.fromkeys(("neurons", "kv_groups", "neuron_parameters", "group_parameters"), whole()),
        **dict.fromkeys(("mlp_locked", "attention_locked"), text()),
    },
    dict.fromkeys(("mlp_parameters", "attention_parameters"), whole()),
)
_REASONS, _LAYERS = table(text(), text(5)), listed(whole(0, MOST_LAYERS - 1), most=MOST_LAYERS)
_TOWER = fields(
    {"n_layers": whole(0, MOST_LAYERS)},
    {
        "layer_parameters": listed(whole(), most=MOST_LAYERS),
        "protected": _REASONS,
        "locked": _REASONS,
        "unread": _LAYERS,
        "missing": text(1000),
    },
)
SCHEMA = fields(  # of a ModelInfo in a saved file
    {
        "name": text(1000),
        "fingerprint": text(200),
        "n_layers": whole(1, MOST_LAYERS),
        "protected": _REASONS,
        "locked": _REASONS,
    },
    {
        "dtype": text(40),
        "revision": maybe(text(1000)),
        "config_hash": maybe(text(200)),
        "layer_parameters": listed(whole(), most=MOST_LAYERS),
        "n_parameters": whole(),
        "attention_layers": _LAYERS,
        "cross_attention_layers": _LAYERS,
        "vision_locked": _REASONS,
        "chat_template": maybe(text()),
        "end_token": maybe(text()),
        "context_length": maybe(whole()),
        "adapter": maybe(text()),
        "disagreements": listed(text(), most=1000),
        "widths": listed(_WIDTH, most=MOST_LAYERS),
        "tower": maybe(_TOWER),
    },
)
FIRST_AND_LAST = "first and last layers stay unless you let them go"


@dataclass(frozen=True)
class Locks:
    """Which layers stay, each with the reason.

    Attributes:
        n_layers: of the model.
        protected: risky to drop; may be let go (`keeping`).
        locked: dropping one would crash the model or make no sense.
        own: what the user wants to keep.

    Raises:
        EditError: a layer that the model does not have.
    """

    n_layers: int
    protected: Mapping[int, str] = field(default_factory=dict)
    locked: Mapping[int, str] = field(default_factory=dict)
    own: Mapping[int, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        levels = ((name, getattr(self, name)) for name in ("protected", "locked", "own"))
        said = (f"{name} {some_of(map(str, sorted(of)), 12)}" for name, of in levels if of)
        return brief(self, counted(self.n_layers, "layer"), *said)

    def __post_init__(self) -> None:
        beyond = sorted(layer for layer in self.reasons if not 0 <= layer < self.n_layers)
        if beyond:
            raise EditError(
                f"No such layers to keep: expected numbers in 0..{self.n_layers - 1}, got {beyond[:10]}. Name layers of this model."
            )

    @classmethod
    def given(
        cls,
        n_layers: int,
        locks: Locks | None = None,
        protected: Collection[int] | None = None,
        locked: Collection[int] = (),
    ) -> Locks:
        """Return `locks`, or else locks made from two collections; `protected=None` protects the first and the last layer.

        Layers of a collection that the model does not have are left out.

        Raises:
            EditError: both `locks` and collections, or locks of another number of layers.
        """
        if locks is None:
            ends = dict.fromkeys((0, n_layers - 1), FIRST_AND_LAST)
            kinds = ends if protected is None else _with_reasons(protected), _with_reasons(locked)
            return cls(
                n_layers, *({layer: why for layer, why in kind.items() if 0 <= layer < n_layers} for kind in kinds)
            )
        if protected is not None or locked:
            raise EditError(
                "Which layers stay is given twice: expected locks, or protected and locked, got both. Leave out one."
            )
        if locks.n_layers != n_layers:
            raise EditError(
                f"The locks are of another model: expected {n_layers} layers, got {locks.n_layers}. Take this model's locks."
            )
        return locks

    @property
    def reasons(self) -> dict[int, str]:
        """Return every layer that stays, with all its reasons, ascending."""
        reasons: dict[int, list[str]] = {}
        for kind in (self.locked, self.protected, self.own):
            for layer, reason in kind.items():
                reasons.setdefault(layer, []).append(reason)
        return {layer: "; ".join(filter(None, reasons[layer])) for layer in sorted(reasons)}

    @property
    def free(self) -> list[int]:
        """Return the layers that may go, ascending."""
        reasons = self.reasons
        return [layer for layer in range(self.n_layers) if layer not in reasons]

    def keeping(self, layers: Collection[int] = (), *, unprotect: bool = False) -> Locks:
        """Return the locks as the user wants them.

        Args:
            layers: to keep, optionally with reasons, as `{layer: reason}`.
            unprotect: whether protected layers may go.
        """
        own = {**self.own, **_with_reasons(layers, "you keep it")}
        return replace(self, own=own, protected={} if unprotect else self.protected)


def _with_reasons(layers: Collection[int], reason: str = "") -> dict[int, str]:
    return {int(layer): str(layers[layer]) if isinstance(layers, Mapping) else reason for layer in layers}


@dataclass(frozen=True)
class LayerWidth:
    """How wide a decoder layer is, why it cannot be made narrow (see `Narrow`), and how much it has to lose (see `DropPart`).

    Attributes:
        neurons, kv_groups: number of its MLP neurons and attention groups; 0 where those cannot be cut.
        neuron_parameters, group_parameters: parameters of one of them.
        mlp_locked, attention_locked: why they cannot be cut; "" where they can.
        mlp_parameters, attention_parameters: parameters of its whole MLP and attention; 0 where that is no module of its own.
    """

    neurons: int
    kv_groups: int
    neuron_parameters: int
    group_parameters: int
    mlp_locked: str = ""
    attention_locked: str = ""
    mlp_parameters: int = 0
    attention_parameters: int = 0


@dataclass(frozen=True)
class TowerInfo:
    """The layers of a model's vision encoder (its tower), counted from 0 as the decoder's.

    Attributes:
        n_layers: how many; 0 where they cannot be dropped.
        layer_parameters: parameters of each.
        protected, locked: layers that are risky to drop, and those that cannot be dropped, each with the reason.
        unread: the last ones, whose outputs nothing reads; they run for nothing.
        missing: why none can be dropped; "" where some can.
    """

    n_layers: int
    layer_parameters: tuple[int, ...] = ()
    protected: dict[int, str] = field(default_factory=dict)
    locked: dict[int, str] = field(default_factory=dict)
    unread: tuple[int, ...] = ()
    missing: str = ""

    @property
    def locks(self) -> Locks:
        return Locks(self.n_layers, self.protected, self.locked)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TowerInfo:
        """Return the TowerInfo of `content`, which fits `SCHEMA`.

        Raises:
            ValueError: it does not fit together.
        """
        reasons = {
            name: {int(layer): str(reason) for layer, reason in content.get(name, {}).items()}
            for name in ("protected", "locked")
        }
        counted = {name: tuple(map(int, content.get(name, ()))) for name in ("layer_parameters", "unread")}
        fields: dict[str, Any] = {**content, **reasons, **counted}
        info = cls(**fields)
        if beyond := sorted(
            layer for layer in (*info.protected, *info.locked, *info.unread) if not 0 <= layer < info.n_layers
        ):
            raise ValueError(f"expected layers of a tower of {info.n_layers}, got {beyond[:10]}")
        if len(info.layer_parameters) not in (0, info.n_layers):
            raise ValueError(
                f"expected the parameters of {info.n_layers} layers of the tower, got {len(info.layer_parameters)}"
            )
        return info


@dataclass(frozen=True)
class ModelInfo:
    """The model that a saved item belongs to: enough to recognise it without loading it.

    Attributes:
        name: the hub id, or the name of the folder it was loaded from.
        fingerprint: sha256 of everything that decides the numbers.
        protected, locked: layers that are risky to drop, and those that cannot be dropped, each with the reason.
        revision: the commit of a hub id, or the requested revision where that is unknown; None for a folder.
        config_hash: sha256 of the configuration, as far as it decides the architecture; None in older items.
        layer_parameters: parameters of each decoder layer; empty in older items.
        n_parameters: of the whole model; 0 in older items.
        attention_layers: layers that cache keys and values, where others do not; empty where all do, and in items of version 0.1.
        cross_attention_layers: layers whose keys and values come from the image; empty in items of version 0.1.
        vision_locked: layers that vision tokens cannot skip, each with the reason; empty in items of version 0.1.
        chat_template: the file that holds the chat template in force, or "none"; None in items of version 0.1, as the next three.
        end_token: the token that ends an answer.
        context_length: the most tokens of a prompt with its answer; None where the configuration names none.
        adapter: the adapter that was merged into the weights; None without one.
        disagreements: a sentence for each point in which the checkpoint's files disagree about how it is asked.
        widths: how wide each decoder layer is; empty in older items.
        tower: the layers of the vision encoder; None in older items.
    """

    name: str
    fingerprint: str
    n_layers: int
    dtype: str = "float32"
    protected: dict[int, str] = field(default_factory=dict)
    locked: dict[int, str] = field(default_factory=dict)
    revision: str | None = None
    config_hash: str | None = None
    layer_parameters: tuple[int, ...] = ()
    n_parameters: int = 0
    attention_layers: tuple[int, ...] = ()
    cross_attention_layers: tuple[int, ...] = ()
    chat_template: str | None = None
    end_token: str | None = None
    context_length: int | None = None
    adapter: str | None = None
    disagreements: tuple[str, ...] = ()
    vision_locked: dict[int, str] = field(default_factory=dict)
    widths: tuple[LayerWidth, ...] = ()
    tower: TowerInfo | None = field(default=None, kw_only=True)

    def __repr__(self) -> str:
        return brief(
            self, self.name, counted(self.n_layers, "layer"), self.dtype, f"fingerprint {self.fingerprint[:8]}"
        )

    @property
    def locks(self) -> Locks:
        return Locks(self.n_layers, self.protected, self.locked)

    @property
    def n_tower(self) -> int:
        """Return the number of layers of the vision encoder that can be told apart; 0 where none can, and in older items."""
        return 0 if self.tower is None else self.tower.n_layers

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ModelInfo:
        """Return the ModelInfo of `content`, the output of `dataclasses.asdict` after JSON, which turns layer numbers into text.

        Raises:
            ValueError, TypeError: `content`, which fits `SCHEMA`, does not fit together.
        """
        reasons = {
            name: {int(layer): str(reason) for layer, reason in content.get(name, {}).items()}
            for name in ("protected", "locked", "vision_locked")
        }
        counted = {
            name: tuple(int(number) for number in content.get(name, ()))
            for name in ("layer_parameters", "attention_layers", "cross_attention_layers")
        }
        said = tuple(str(text) for text in content.get("disagreements", ()))
        widths = tuple(LayerWidth(**one) for one in content.get("widths", ()))
        tower = TowerInfo.from_json(content["tower"]) if content.get("tower") else None
        fields: dict[str, Any] = {
            **content,
            **reasons,
            **counted,
            "disagreements": said,
            "widths": widths,
            "tower": tower,
        }
        info = cls(**fields)
        named = {
            *info.protected,
            *info.locked,
            *info.vision_locked,
            *info.attention_layers,
            *info.cross_attention_layers,
        }
        if beyond := sorted(layer for layer in named if not 0 <= layer < info.n_layers):
            raise ValueError(f"expected layers of a model of {info.n_layers}, got {beyond[:10]}")
        for known, what in ((info.layer_parameters, "parameters"), (info.widths, "widths")):
            if len(known) not in (0, info.n_layers):
                raise ValueError(f"expected the {what} of {info.n_layers} layers, got {len(known)}")
        return info

"""Define a kind of change of your own, and evaluate, sweep and save it like any other edit.

python examples/own_kind_of_change.py
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vlm_analysis import KINDS, Change, Drop, Edit, evaluate, load_model, open_edit, open_prompts, save_edit, sweep


@dataclass(frozen=True)
class ScaleMlp(Change):
    """Scales what the MLP of a layer adds to the stream."""

    kind: ClassVar[str] = "scale-mlp"

    layer: int
    factor: float

    @property
    def layers(self) -> Mapping[int, str | None]:
        return {} if self.factor == 1 else {self.layer: repr(self.factor)}

    def apply(self, view: Any) -> None:
        view.own(view.layer(self.layer).mlp.down_proj).mul_(self.factor)

    def words(self) -> str:
        return f"scales the MLP of layer {self.layer} by {self.factor:g}"

    def to_json(self) -> dict[str, Any]:
        return {"layer": self.layer, "factor": self.factor}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ScaleMlp":
        return cls(int(content["layer"]), float(content["factor"]))


KINDS[ScaleMlp.kind] = ScaleMlp  # a row of the table: applied after the kinds that are there

loaded = load_model("pocket-vl")
prompts = open_prompts("math")[:8]
dense = evaluate(loaded, prompts)
edits = [Edit(16, (Drop((9,)), ScaleMlp(12, factor))) for factor in (1.0, 0.5, 0.0)]
for edit, found in zip(edits, sweep(loaded, prompts, edits, reference=dense), strict=True):
    kl = found.by_prompt["kl_to_dense"].mean()
    print(f"KL to dense {kl:.4f} where the edit {edit.words()}.")

save_edit(edits[1], Path("edit.json"))
assert open_edit(Path("edit.json")) == edits[1]

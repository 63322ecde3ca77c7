"""The slot of the one loaded model. Torch is imported when a model is loaded."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlm_analysis.assets import BUNDLED_MODELS, asset
from vlm_analysis.errors import ModelError
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.progress import Progress
from vlm_analysis.workbench.seen import Seen

if TYPE_CHECKING:
    from vlm_analysis.evaluation.evaluation import Evaluation
    from vlm_analysis.evaluation.run.latency import Latency
    from vlm_analysis.models.fit import FitEstimate
    from vlm_analysis.models.load import LoadedModel


@dataclass(frozen=True)
class Held:
    """What a page shows of the loaded model. It stays as it is when a job unloads the model while the page is drawn.

    Attributes:
        info: what is saved with items of this model.
        source: where it was loaded from.
        device: where it computes.
        places: bytes of the weights by where they are kept.
        max_vision_tokens, dtype_reason, quantiser: as of `LoadedModel`.
        configuration: the model's, as JSON.
    """

    info: ModelInfo
    source: str
    device: str
    places: Mapping[str, int]
    max_vision_tokens: int | None
    dtype_reason: str
    quantiser: str | None
    configuration: str

    @classmethod
    def of(cls, loaded: LoadedModel) -> Held:
        """Return what is shown of a model."""
        return cls(
            info=loaded.info,
            source=str(loaded.source),
            device=str(loaded.device),
            places=loaded.places,
            max_vision_tokens=loaded.max_vision_tokens,
            dtype_reason=loaded.dtype_reason,
            quantiser=loaded.quantiser,
            configuration=loaded.model.config.to_json_string(use_diff=False),
        )


class ModelSlot:
    """The one loaded model of the process, with its dense evaluations. Only jobs load into it."""

    def __init__(self) -> None:
        self._loaded: LoadedModel | None = None
        self.held: Held | None = None
        self.dense: dict[str, Evaluation] = {}
        self.latency: Latency | None = None
        self.seen = Seen()
        self.arguments: tuple[str, dict[str, Any]] = ("pocket-vl", {})  # what the model was loaded with
        self._borrowed = False

    @classmethod
    def holding(cls, loaded: LoadedModel) -> ModelSlot:
        """Return a slot with a model that the caller loaded and will close."""
        slot = cls()
        slot._loaded, slot.held, slot._borrowed = loaded, Held.of(loaded), True
        name = next((name for name in BUNDLED_MODELS if str(asset(name)) == loaded.source), str(loaded.source))
        slot.arguments = (name, {"revision": loaded.revision} if loaded.revision else {})
        return slot

    @property
    def info(self) -> ModelInfo | None:
        """Return what is saved with items of the loaded model; None if there is none."""
        held = self.held
        return None if held is None else held.info

    @property
    def loaded(self) -> LoadedModel:
        """Return the loaded model; raises ModelError if there is none."""
        if self._loaded is None:
            raise ModelError("No model is loaded. Load one on the Model page.")
        return self._loaded

    def expected(self, fingerprint: str) -> LoadedModel:
        """Return the loaded model if it is still the one a job was started for.

        Raises:
            ModelError: another model was loaded, or this one unloaded, while the job waited.
        """
        if self.fingerprint != fingerprint:
            raise ModelError(
                "The model this was started for is no longer loaded. Load it again, or start anew with the one there."
            )
        return self.loaded

    @property
    def fingerprint(self) -> str:
        """Return the loaded model's fingerprint, "" if there is none."""
        info = self.info
        return "" if info is None else info.fingerprint

    def load(self, source: str, options: dict[str, Any], on_progress: Progress) -> LoadedModel:
        """Check that the source would fit in place of the present model, unload that, then load.

        If the source is refused, the present model stays loaded. The new model's objects are exempt from garbage collection.
        """
        from vlm_analysis.models.load import check_source, load_model

        check_options = {name: value for name, value in options.items() if name != "max_vision_tokens"}
        check_source(source, **check_options, given_back=0 if self._loaded is None else self._loaded.n_bytes)
        self.unload()
        self._loaded = load_model(source, **options, on_progress=on_progress)
        self.held, self.arguments = Held.of(self._loaded), (source, dict(options))
        gc.collect()
        gc.freeze()
        return self._loaded

    def fit(self, source: str, options: dict[str, Any], on_progress: Progress) -> FitEstimate:
        """Return an estimate of whether a model fits in place of the present one."""
        on_progress(0, 1, "reading the configuration (the first time, PyTorch takes some seconds)")
        from vlm_analysis.models.fit import estimate_fit

        return estimate_fit(
            source,
            revision=options.get("revision"),
            trust_remote_code=bool(options.get("trust_remote_code")),
            device=options["device"],
            given_back=self.loaded.n_bytes if self.info is not None else 0,
        )

    def unload(self) -> None:
        """Unload the model and free its memory."""
        if self._loaded is None:
            return
        loaded, self._loaded, self.held = self._loaded, None, None
        self.dense.clear()
        self.latency, self.seen = None, Seen()
        if self._borrowed:
            self._borrowed = False
            return
        gc.unfreeze()
        loaded.close()

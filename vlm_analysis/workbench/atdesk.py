"""The desk of a Bench: whose model and workspace its parts work on, loaded when first needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vlm_analysis.progress import Progress
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.workbench.desk import Desk, prompts_item
from vlm_analysis.workbench.slot import ModelSlot
from vlm_analysis.workbench.workspace import Item, Workspace

if TYPE_CHECKING:
    from vlm_analysis.models.load import LoadedModel
    from vlm_analysis.workbench.cluster.crew import Crew


class AtDesk:
    """What all parts of the Bench share (see `bench.Bench`)."""

    def __init__(
        self,
        model: LoadedModel | ModelSlot | str | Path,
        workspace: Workspace | Path | None = None,
        *,
        project: str = "",
        **options: Any,
    ) -> None:
        shelf = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
        self.workspace = Workspace(shelf.base, project) if project else shelf
        self._source: str | None = str(model) if isinstance(model, (str, Path)) else None
        self._options = options
        if isinstance(model, ModelSlot):
            self._slot = model
        else:
            self._slot = ModelSlot() if isinstance(model, (str, Path)) else ModelSlot.holding(model)
        self._model = self._slot.fingerprint
        self._crew: Crew | None = None

    @contextmanager
    def on_cluster(self, address: str = "auto") -> Iterator[Self]:
        """Let the workers of a Ray cluster measure, inside of the block, what this Bench records, scores and scans.

        Rows and scores are those of one machine with as many threads, to the last bit: parts are whole batches, and this process alone
        writes. A part of a worker that dies runs again on another. Each worker loads the model from where this Bench did, so a folder has
        to be there under the same path on every machine. Probes, times and recoveries run here as ever.

            with Bench("pocket-vl").on_cluster("10.0.0.5:6379") as bench:
                bench.damage(prompts)

        Args:
            address: host:port of the cluster, or "auto" for the one that runs on this machine; where none does, one is started that listens
                on 127.0.0.1 alone. "" changes nothing.

        Raises:
            ClusterError: Ray is not installed, or there is no such cluster.
        """
        if not address:
            yield self
            return
        from vlm_analysis.workbench.cluster.crew import connected

        with connected(address) as crew:
            self._crew = crew
            try:
                yield self
            finally:
                self._crew = None

    def _desk(self, on_progress: Progress) -> Desk:
        """Return the Desk of this Bench, loading the model if needed."""
        if self._source is not None:
            self._slot.load(self._source, self._options, on_progress)
            self._source, self._model = None, self._slot.fingerprint
        desk = Desk(self._slot, self.workspace, self._model, self._crew)
        _ = desk.loaded  # raises before any work if the slot holds another model
        return desk

    def _at(self, prompts: PromptSet | Item, on_progress: Progress) -> tuple[Desk, Item]:
        return self._desk(on_progress), prompts_item(self.workspace, prompts)

    def _name(self, prompts: Item) -> str:
        return f"{self._slot.loaded.name} on {prompts.name}"

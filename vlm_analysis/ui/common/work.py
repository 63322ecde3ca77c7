"""The jobs that pages start: each is one call of the Bench or of the model slot, and the partial results it shows.

The arguments of a job are gathered while the page runs; the call never touches Streamlit's session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vlm_analysis.assets import BUNDLED_MODELS
from vlm_analysis.progress import Progress
from vlm_analysis.ui.common.session import bench, live, model_slot, workspace
from vlm_analysis.workbench.bench import Bench
from vlm_analysis.workbench.recent import RecentModel, note_model
from vlm_analysis.workbench.workspace import Item

if TYPE_CHECKING:
    from vlm_analysis.models.fit import FitEstimate

Work = Callable[[Progress], Any]
BUNDLED = "pocket-vl"


def job(call: Callable[..., Any], *arguments: Any, **options: Any) -> Work:
    """Return the job that makes one call of the Bench."""
    return lambda progress: call(*arguments, **options, on_progress=progress)


def clustered(address: str, own: Bench, work: Work) -> Work:
    """Return a job of a Bench with what it measures handed to a cluster (see `Bench.on_cluster`); "" is this machine."""

    def there(progress: Progress) -> Any:
        with own.on_cluster(address):
            return work(progress)

    return there


def watched(kind: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Work:
    """Return the job that makes one call of the Bench, with its partial results on the live board under `kind`."""
    board = live()

    def show(*partial: Any) -> None:
        board[kind] = partial

    def work(progress: Progress) -> Any:
        board.pop(kind, None)
        result = call(*arguments, **options, on_partial=show, on_progress=progress)
        board.pop(kind, None)
        return result

    return work


def record_work(prompts: Item) -> Work:
    """Record prompts with the loaded model; where none is loaded, the bundled one is loaded first. Returns the recording's Item."""
    slot, shelf = model_slot(), workspace()
    own = None if slot.info is None else bench()

    def work(progress: Progress) -> Item:
        if slot.info is None:
            slot.load(BUNDLED, {}, lambda done, total, message: progress(0, 1, message))
        return (own or Bench(slot, shelf)).record(prompts, on_progress=progress)

    return work


def load_work(source: str, options: dict[str, Any]) -> Work:
    """Load a model into the slot; returns its ModelInfo."""
    slot, shelf = model_slot(), workspace()

    def work(progress: Progress) -> Any:
        info = slot.load(source, options, progress).info
        if source not in BUNDLED_MODELS:
            note_model(shelf, RecentModel(source, info.name, options))
        return info

    return work


def fit_work(source: str, options: dict[str, Any]) -> Work:
    """Estimate whether a model fits in place of the present one; returns the arguments and the FitEstimate."""
    slot = model_slot()

    def work(progress: Progress) -> tuple[Any, FitEstimate]:
        return (source, options), slot.fit(source, options, progress)

    return work


def unload_work() -> Work:
    """Unload the model."""
    slot = model_slot()
    return lambda progress: slot.unload()

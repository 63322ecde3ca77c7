"""Datasets of the Hugging Face Hub by id: what one holds first (files, sizes, licence), then the Parquet files of one split.

huggingface_hub fetches into its own cache, so what it fetched before is not fetched again. Does not read what was fetched (`opening`).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from vlm_analysis.errors import PromptError, short
from vlm_analysis.guard.shared import refuse_if_shared
from vlm_analysis.progress import Cancelled, Progress, no_progress
from vlm_analysis.prompts.hubsplits import HubSplit, splits_of
from vlm_analysis.words import brief, counted, some_of

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo

PREFIX = "hub:"
ANSWERS_IN_S = 5.0  # the Hub's first answer; whoever is offline hears of it after that
CONVERTED = "refs/convert/parquet"  # where the Hub keeps datasets of other formats as Parquet
MOST_FILES = 100_000
MOST_SHOWN = 8
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")
_ADDRESS = re.compile(rf"{PREFIX}(?P<id>[^/@]+/[^/@]+)(@(?P<revision>[^/@]+))?(/(?P<split>.+))?")
_xet = threading.Lock()


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the Hub at one commit, before anything of it is fetched.

    Attributes:
        id: "owner/name".
        revision: the commit, 40 hex digits.
        licence: as its card names it, such as "cc-by-4.0"; "" where the card names none.
        sizes: bytes by file name; 0 where the Hub tells none.
        splits: what can be fetched, each its configuration, name, files and bytes.
    """

    id: str
    revision: str
    licence: str
    sizes: dict[str, int]
    splits: tuple[HubSplit, ...]

    def __repr__(self) -> str:
        splits = f"splits {some_of((one.path for one in self.splits), 4)}"
        return brief(self, self.id, splits, counted(len(self.sizes), "file"), self.licence or "no licence named")

    def split(self, name: str | None = None, config: str | None = None) -> HubSplit:
        """Return the split of a name, and of a configuration where several have one; the only split where nothing is named.

        Raises:
            PromptError: there is none, or there are several; the message lists them.
        """
        found = [one for one in self.splits if name in (None, one.name) and config in (None, one.config)]
        if len(found) == 1:
            return found[0]
        among = found or self.splits
        there = some_of((repr(one.path) for one in among), MOST_SHOWN)
        wanted = short("/".join(part for part in (config, name) if part) or "none named")
        raise PromptError(
            f"'{self.id}' could not be opened: expected one of its splits, {there}, got {wanted}. "
            f'Name one: open_prompts("{PREFIX}{self.id}/{among[0].path}").'
        )


@dataclass(frozen=True)
class Fetched:
    """A split in the Hub's cache, which `open_prompts` opens.

    Attributes:
        label: what messages call it: "owner/name/default/test".
        root: the folder of the dataset's commit in the cache.
        files: the split's files by their names in that folder, in order.
        beside: files that it needs too.
    """

    label: str
    root: Path
    files: tuple[str, ...]
    beside: tuple[str, ...] = ()


def hub_dataset(dataset_id: str, revision: str | None = None) -> HubDataset:
    """Return what a dataset of the Hub holds; nothing of it is fetched.

    A dataset without Parquet files is listed as the Hub converted it.

    Args:
        dataset_id: "owner/name".
        revision: a branch, tag or commit; without it, the main branch.

    Raises:
        PromptError: in shared mode, offline, or there is no such dataset, or none of its files are Parquet.
    """
    refuse_if_shared("Fetching a dataset of the Hub", "Upload a file, or ask the owner to fetch it.", PromptError)
    if not isinstance(dataset_id, str) or not _ID.fullmatch(dataset_id):
        raise PromptError(
            f"the dataset could not be listed: expected an id such as 'owner/name', got {short(repr(dataset_id), 80)}. "
            "Copy it from the dataset's page."
        )
    info = _info(dataset_id, revision)
    card = _card(info)
    splits = splits_of(_sizes(info), card)
    if not splits and revision is None:
        try:
            info = _info(dataset_id, CONVERTED)
        except PromptError:  # the Hub has not converted it
            pass
        else:
            splits = splits_of(_sizes(info), {})
    if not splits:
        raise PromptError(
            f"'{dataset_id}' could not be opened: expected Parquet files, got {_endings(info)}. "
            "Download it, and open its folder."
        )
    return HubDataset(dataset_id, str(info.sha), _licence(card), _sizes(info), splits)


def fetch_split(dataset: HubDataset, split: HubSplit, on_progress: Progress = no_progress) -> Fetched:
    """Fetch the files of a split, and of what it needs beside it, into the Hub's cache, and return what lies there.

    Progress counts bytes. What was fetched before is not fetched again.

    Raises:
        PromptError: in shared mode, offline, or a file could not be fetched.
        Cancelled: work was asked to stop; whole files stay in the cache.
    """
    refuse_if_shared("Fetching a dataset of the Hub", "Upload a file, or ask the owner to fetch it.", PromptError)
    path, done = Path(), 0
    for name in (*split.files, *split.beside):
        on_progress(done, split.n_bytes, f"Fetching {short(name, 80)}")
        path = _fetch(dataset, name, done, split.n_bytes, on_progress)
        done += dataset.sizes[name]
    on_progress(split.n_bytes, split.n_bytes, "Fetched")
    root = path.parents[len(PurePosixPath(name).parts) - 1]
    return Fetched(f"{dataset.id}/{split.path}", root, split.files, split.beside)


def dataset_at(address: str) -> tuple[HubDataset, str]:
    """Return the dataset of an address, listed, and the split that it names, "" where it names none (see `fetch_prompts`).

    Raises:
        PromptError: it is no address, and as `hub_dataset`.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise PromptError(
            f"the dataset could not be opened: expected '{PREFIX}owner/name/split', got {short(repr(address), 80)}. "
            "Write its id and a split."
        )
    return hub_dataset(found["id"], found["revision"]), found["split"] or ""


def fetch_prompts(address: str, on_progress: Progress = no_progress) -> Fetched:
    """List a dataset, and fetch one split of it.

    Args:
        address: "hub:owner/name/split", "hub:owner/name/configuration/split", or "hub:owner/name" where there is but one; behind the
            name may stand "@" with a revision.
        on_progress: called with bytes.

    Raises:
        PromptError: as `hub_dataset`, `HubDataset.split` and `fetch_split`.
    """
    dataset, split = dataset_at(address)
    config, _, name = split.rpartition("/")
    return fetch_split(dataset, dataset.split(name or None, config or None), on_progress)


def _info(dataset_id: str, revision: str | None) -> DatasetInfo:
    from huggingface_hub import HfApi

    with _in_words(dataset_id):
        info = HfApi().dataset_info(dataset_id, revision=revision, files_metadata=True, timeout=ANSWERS_IN_S)
    if len(info.siblings or ()) > MOST_FILES:
        raise PromptError(
            f"'{dataset_id}' was refused: expected at most {MOST_FILES:,} files, got more. Choose another dataset."
        )
    return info


def _fetch(dataset: HubDataset, name: str, before: int, total: int, on_progress: Progress) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        """The progress bar that huggingface_hub is given: it draws nothing, and may raise Cancelled."""

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings | {"disable": True})
            self.fetched = 0

        def update(self, n: float | None = 1) -> None:
            self.fetched += int(n or 0)
            on_progress(min(before + self.fetched, total), total, f"Fetching {short(name, 80)}")

    where: dict[str, Any] = {"repo_type": "dataset", "revision": dataset.revision}
    with _in_words(dataset.id):
        kept = try_to_load_from_cache(dataset.id, name, **where)
        if isinstance(kept, str):
            return Path(kept)
        # One question without retries: huggingface_hub itself would try for a minute before it says that the Hub is out of reach.
        get_hf_file_metadata(hf_hub_url(dataset.id, name, **where), timeout=ANSWERS_IN_S)
        with _plain_http():
            return Path(hf_hub_download(dataset.id, name, **where, etag_timeout=ANSWERS_IN_S, tqdm_class=Bar))


@contextmanager
def _plain_http() -> Iterator[None]:
    """Let huggingface_hub fetch by plain HTTP, which stops between two pieces; Xet tells its progress where nothing can stop it."""
    from huggingface_hub import constants

    with _xet:
        before, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
        try:
            yield
        finally:
            constants.HF_HUB_DISABLE_XET = before


@contextmanager
def _in_words(dataset_id: str) -> Iterator[None]:
    """Raise what huggingface_hub and the network raise as a PromptError that says what to do."""
    from huggingface_hub import errors

    def refused(what: str, advice: str) -> PromptError:
        return PromptError(f"'{dataset_id}' could not be fetched: expected a dataset of the Hub, got {what}. {advice}")

    try:
        yield
    except (Cancelled, PromptError):
        raise
    except errors.OfflineModeIsEnabled as error:
        raise refused(
            "offline mode (HF_HUB_OFFLINE is set)", "Unset it, or open a folder that holds the files."
        ) from error
    except errors.GatedRepoError as error:
        raise refused(
            "one whose owner asks for consent",
            "Accept its terms on its page, log in by `hf auth login`, and try again.",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise refused("none of this id that you may see", "Check the id, or log in by `hf auth login`.") from error
    except errors.RevisionNotFoundError as error:
        raise refused("no such revision", "Name a branch, a tag or a commit of it.") from error
    except errors.HfHubHTTPError as error:
        raise refused(f"an error ({short(error)})", "Try again later.") from error
    except Exception as error:  # of whatever lies between here and the Hub
        raise refused(
            f"no answer ({short(str(error) or type(error).__name__)})",
            "Check the connection, or open a folder that holds the files.",
        ) from error


def _sizes(info: DatasetInfo) -> dict[str, int]:
    """Return the bytes of each file; a name that leads out of the dataset is left out."""
    files = [one for one in info.siblings or () if ".." not in re.split(r"[/\\]", one.rfilename)]
    return {one.rfilename: max(0, one.size or 0) for one in files if not one.rfilename.startswith(("/", "\\"))}


def _card(info: DatasetInfo) -> dict[str, Any]:
    return dict(info.card_data.to_dict()) if info.card_data is not None else {}


def _licence(card: dict[str, Any]) -> str:
    named = card.get("license_name") if card.get("license") == "other" else card.get("license")
    names = named if isinstance(named, list) else [named or card.get("license")]
    return short(", ".join(str(name) for name in names if name))


def _endings(info: DatasetInfo) -> str:
    endings = sorted({Path(name).suffix or "none" for name in _sizes(info)})
    return short(", ".join(endings)) or "no files"

"""Datasets of the Hub by id: listed before anything is fetched, one split fetched, and said at once where the Hub is out of reach."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub import COMMIT, Hub, Kept, point_to, serving
from huggingface_hub import constants

from vlm_analysis import hub_dataset
from vlm_analysis.errors import PromptError
from vlm_analysis.progress import Cancelled
from vlm_analysis.prompts import hubdata
from vlm_analysis.prompts.hubdata import Fetched, fetch_prompts, fetch_split
from vlm_analysis.prompts.hubsplits import splits_of

CARD = {
    "license": "cc-by-4.0",
    "configs": [
        {"config_name": "default", "data_files": [{"split": "test", "path": "data/test-*"}, {"split": "val", "path": "data/val-*"}]}
    ],
}  # fmt: skip
FILES = {
    "README.md": b"# it",
    "data/test-00000-of-00002.parquet": b"one" * 100,
    "data/test-00001-of-00002.parquet": b"two" * 200,
    "data/val-00000-of-00001.parquet": b"val",
}
TEST = ["data/test-00000-of-00002.parquet", "data/test-00001-of-00002.parquet"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving() as server:
        point_to(server.address, monkeypatch, tmp_path)
        server.datasets["some/data"] = Kept(FILES, CARD)
        yield server


def test_files_sizes_licence_and_splits_are_listed_and_nothing_is_fetched(hub: Hub) -> None:
    data = hub_dataset("some/data")
    assert (data.id, data.revision, data.licence) == ("some/data", COMMIT, "cc-by-4.0")
    assert data.sizes == {name: len(content) for name, content in FILES.items()}
    assert [(one.path, one.n_bytes) for one in data.splits] == [("default/test", 900), ("default/val", 3)]
    assert [line for line in hub.asked if "datasets" in line] == ["GET /api/datasets/some/data"]


def test_only_the_chosen_split_is_fetched_and_only_once(hub: Hub) -> None:
    calls: list[tuple[int, int]] = []
    data = hub_dataset("some/data")
    fetched = fetch_split(data, data.split("test"), lambda done, total, _: calls.append((done, total)))
    assert (fetched.label, list(fetched.files)) == ("some/data/default/test", TEST)
    assert [(fetched.root / name).read_bytes() for name in TEST] == [FILES[name] for name in TEST]
    assert hub.fetched() == TEST
    assert calls[0] == (0, 900)
    assert calls[-1] == (900, 900)
    assert calls == sorted(calls)
    n_asked = len(hub.asked)
    assert fetch_split(data, data.split("test")) == fetched
    assert len(hub.asked) == n_asked


def test_a_fetch_that_is_cancelled_leaves_no_part_behind_and_can_be_repeated(hub: Hub, tmp_path: Path) -> None:
    def stop(done: int, total: int, message: str) -> None:
        if done:
            raise Cancelled

    data = hub_dataset("some/data")
    with pytest.raises(Cancelled):
        fetch_split(data, data.split("val"), stop)
    assert not list((tmp_path / "cache").rglob("blobs/*"))
    assert content(fetch_split(data, data.split("val"))) == b"val"


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (None, "got none of this id"),
        (Kept(refused=(403, "GatedRepo")), "whose owner asks for consent"),
        (Kept(refused=(500, "")), "got an error"),
        (Kept({"a.jsonl": b"", "b.zip": b"", "c": b""}), r"expected Parquet files, got \.jsonl, \.zip, none"),
        (Kept({"../../a.parquet": b"", "/etc/b.parquet": b""}), "expected Parquet files, got no files"),
    ],
)
def test_what_cannot_be_listed_is_said_in_words(hub: Hub, kept: Kept | None, said: str) -> None:
    if kept is not None:
        hub.datasets["other/data"] = kept
    with pytest.raises(PromptError, match=said):
        hub_dataset("other/data")


def test_an_unknown_revision_and_an_id_that_is_none_are_refused(hub: Hub) -> None:
    with pytest.raises(PromptError, match="got no such revision"):
        hub_dataset("some/data", "nowhere")
    for name in ("data", "../x", "a/b/c", "https://huggingface.co/datasets/some/data", ""):
        with pytest.raises(PromptError, match="expected an id such as 'owner/name'"):
            hub_dataset(name)


def test_a_dataset_in_another_format_is_listed_as_the_hub_converted_it(hub: Hub) -> None:
    hub.datasets["some/json"] = Kept({"a.jsonl": b"{}"}, {"license": "mit"})
    hub.datasets["some/json@refs/convert/parquet"] = Kept({"default/test/0000.parquet": b"it"})
    data = hub_dataset("some/json")
    assert data.licence == "mit"
    assert content(fetch_split(data, data.split())) == b"it"


def test_an_address_names_dataset_revision_configuration_and_split(hub: Hub) -> None:
    hub.datasets["some/data@v2"] = hub.datasets["some/data"]
    for address in ("hub:some/data/val", "hub:some/data/default/val", "hub:some/data@v2/val"):
        assert content(fetch_prompts(address)) == b"val"
    assert "GET /api/datasets/some/data/revision/v2" in hub.asked
    for address in ("hub:some", "hub:some/data@/val", "hub:", "hub:some/data@a@b/val"):
        with pytest.raises(PromptError, match="expected 'hub:owner/name/split'"):
            fetch_prompts(address)
    for address in ("hub:some/data", "hub:some/data/other/val"):
        with pytest.raises(PromptError, match="expected one of its splits"):
            fetch_prompts(address)


def test_a_split_that_is_not_there_or_not_named_is_asked_for_by_a_list(hub: Hub) -> None:
    data = hub_dataset("some/data")
    for wrong in ("train", None):
        with pytest.raises(PromptError, match="expected one of its splits, 'default/test', 'default/val', got"):
            data.split(wrong)


def test_of_very_many_splits_the_first_are_listed_and_the_rest_is_counted(hub: Hub) -> None:
    hub.datasets["some/data"] = Kept({f"{number:02}/test/0000.parquet": b"" for number in range(30)})
    with pytest.raises(PromptError, match=r"'00/test', .*'07/test' and 22 more, got test\. Name one"):
        hub_dataset("some/data").split("test")


class TestOffline:
    def test_offline_mode_is_said_at_once(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(PromptError, match="HF_HUB_OFFLINE is set"):
            hub_dataset("some/data")
        assert hub.asked == []

    def test_a_hub_out_of_reach_is_said_without_another_try(self, hub: Hub, monkeypatch, tmp_path: Path) -> None:
        data = hub_dataset("some/data")
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            point_to(f"http://127.0.0.1:{closed.getsockname()[1]}", monkeypatch, tmp_path)
            monkeypatch.setattr(time, "sleep", no_waiting)
            for ask in (lambda: hub_dataset("some/data"), lambda: fetch_split(data, data.split("val"))):
                with pytest.raises(PromptError, match=r"got no answer .* Check the connection"):
                    ask()

    def test_a_hub_that_never_answers_is_given_up(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(hubdata, "ANSWERS_IN_S", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            point_to(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch, tmp_path)
            with pytest.raises(PromptError, match="got no answer"):
                hub_dataset("some/data")

    def test_what_was_fetched_before_opens_without_a_connection(self, hub: Hub, monkeypatch, tmp_path: Path) -> None:
        data = hub_dataset("some/data")
        fetched = fetch_split(data, data.split("val"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert fetch_split(data, data.split("val")) == fetched


def test_a_shared_dashboard_fetches_nothing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    data = hub_dataset("some/data")
    monkeypatch.setenv("STRATA_SHARED", "1")
    for ask in (lambda: hub_dataset("some/data"), lambda: fetch_split(data, data.splits[0])):
        with pytest.raises(PromptError, match="Fetching a dataset of the Hub is not allowed"):
            ask()


def content(fetched: Fetched) -> bytes:
    return (fetched.root / fetched.files[0]).read_bytes()


def no_waiting(seconds: float) -> None:
    raise AssertionError(f"waits {seconds} s before it tries again")


SIZES = {
    "gqa/q_instructions/test-00000-of-00001.parquet": 5,
    "gqa/q_images/test-00000-of-00001.parquet": 50,
    "Math/validation-00000-of-00001.parquet": 7,
    "testmini.parquet": 3,
    "conv/test/0000.parquet": 2,
    "conv/test/0001.parquet": 1,
    "a.csv": 9,
}


class TestSplits:
    def test_names_of_files_tell_configuration_and_split(self) -> None:
        assert {one.path: (len(one.files), one.n_bytes) for one in splits_of(SIZES, {})} == {
            "gqa/q_images/test": (1, 50),
            "gqa/q_instructions/test": (1, 55),
            "Math/validation": (1, 7),
            "default/testmini": (1, 3),
            "conv/test": (2, 3),
        }

    def test_questions_whose_pictures_are_another_configuration_bring_them(self) -> None:
        one = next(one for one in splits_of(SIZES, {}) if one.config == "gqa/q_instructions")
        assert one.beside == ("gqa/q_images/test-00000-of-00001.parquet",)

    def test_the_card_counts_before_the_names(self) -> None:
        card = {"configs": [{"config_name": "mini", "data_files": [{"split": "s", "path": ["testmini.parquet"]}]}]}
        assert [one.path for one in splits_of(SIZES, card)] == ["mini/s"]
        assert [one.path for one in splits_of(SIZES, {"configs": [{"data_files": "**/test*.parquet"}]})] == [
            "default/train"
        ]

    @pytest.mark.parametrize("configs", [None, 3, "x", [None], [{}], [{"data_files": [3, {}, {"path": 4}]}], {"a": 1}])
    def test_a_card_that_says_nothing_of_use_is_passed_over(self, configs: object) -> None:
        assert len(splits_of(SIZES, {"configs": configs})) == 5

"""A dataset of the Hub on the Prompts page: listed first, one split fetched, then looked at as any other data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from acting import OpenPage, ended, ran, words
from streamlit.testing.v1 import AppTest

from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.hubdata import Fetched, HubDataset
from vlm_analysis.prompts.hubsplits import HubSplit
from vlm_analysis.prompts.opening import Preview
from vlm_analysis.ui.common import incoming
from vlm_analysis.ui.prompts import hubform

TAB = "A dataset of the Hub"
SPLITS = (HubSplit("default", "test", ("data/test.parquet",), 2_600_000), HubSplit("default", "val", ("v.parquet",), 1))
DATASET = HubDataset("owner/name", "a" * 40, "cc-by-4.0", {"data/test.parquet": 2_600_000, "v.parquet": 1}, SPLITS)

FETCHED = Fetched("owner/name/default/val", Path("cache"), ("v.parquet",))


@pytest.fixture
def at(open_page: OpenPage) -> AppTest:
    at = open_page("pages/2_prompts.py")
    at.session_state["way-in"] = TAB
    return ran(at)


def press(at: AppTest, key: str) -> AppTest:
    at.button(key=key).click()
    return ran(at)


def ask_for(at: AppTest, name: str) -> AppTest:
    at.text_input(key="hub-id").set_value(name)
    return press(at, "hub-button")


def test_a_split_is_fetched_only_when_it_was_chosen_and_then_looked_at(
    at: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    looked: list[Any] = []

    def fetch(dataset: HubDataset, split: HubSplit, progress: Any) -> Fetched:
        fetched.append(split.path)
        return FETCHED

    monkeypatch.setattr(hubform, "hub_dataset", lambda name: DATASET)
    monkeypatch.setattr(hubform, "fetch_split", fetch)
    look = Preview("ChartQA", "why", (), (), ())
    monkeypatch.setattr(incoming, "preview_prompts", lambda source, **how: (looked.append(source), look)[1])
    ask_for(at, "owner/name")
    assert "owner/name: 2 files, 3 MB in all, licence cc-by-4.0" in words(at).replace("\\", "").replace("**", "")
    assert at.dataframe[0].value["MB"].tolist() == [2.6, 1e-6]
    assert not fetched
    at.selectbox(key="hub-split").set_value("default/val")
    press(ran(at), "hub-fetch")
    ended("fetch")
    ran(at)
    assert fetched == ["default/val"]
    assert looked == [FETCHED]
    assert "read as ChartQA" in words(at)


def test_what_cannot_be_listed_is_one_error(at: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str) -> HubDataset:
        raise PromptError("offline: expected the Hub, got none. Go online.")

    monkeypatch.setattr(hubform, "hub_dataset", refused)
    ask_for(at, "owner/name")
    assert [error.value.replace("\\", "") for error in at.error] == ["offline: expected the Hub, got none. Go online."]


def test_a_shared_dashboard_has_no_such_way(open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATA_SHARED", "1")
    at = open_page("pages/2_prompts.py")
    assert TAB not in [tab.label for tab in at.tabs]
    assert "Open a file or folder" in [tab.label for tab in at.tabs]

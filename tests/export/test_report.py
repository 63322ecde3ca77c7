"""A report is one file that loads nothing and runs nothing a user wrote."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from tools.made import made_recording
from vlm_analysis import PruneMask
from vlm_analysis.cli.results import of_mask, of_recording
from vlm_analysis.export.report import Section, report_html
from vlm_analysis.figures.heatmaps import similarity_heatmap
from vlm_analysis.figures.outcomes import damage_bars
from vlm_analysis.figures.profiles import layer_profile

HOSTILE = "</script><script>alert(1)</script>"


def sections() -> list[Section]:
    matrix = np.linspace(0, 1, 32).reshape(2, 16)
    matrix[1, 3] = np.nan
    rows = pd.DataFrame(
        [("general", "exact_match", 0.9, 0.5), (HOSTILE, "exact_match", 0.8, np.nan)],
        columns=["domain", "metric", "dense", "pruned"],
    )
    return [
        Section("Similarity " + HOSTILE, "One.\n\nTwo " + HOSTILE, similarity_heatmap(matrix, ["a", HOSTILE])),
        Section("Raw legend group", "", layer_profile({HOSTILE: matrix[0]}, y_title="cosine similarity")),
        Section("Damage", "", damage_bars(rows), rows),
    ]


@pytest.fixture(scope="module")
def page() -> str:
    return report_html("Report " + HOSTILE, sections(), footer="made by " + HOSTILE)


@pytest.fixture(scope="module")
def own(page: str) -> str:
    """The page without the library."""
    return page.replace(get_plotlyjs(), "")


def test_plotly_is_inside_exactly_once(page):
    assert page.count(get_plotlyjs()) == 1


def test_report_without_figures_carries_no_script():
    page = report_html("Words", [Section("Only", "text")], footer="end")
    assert "<script" not in page
    assert len(page) < 10_000


def test_a_mask_and_a_recording_are_drawn_without_a_script():
    recording = made_recording(16, ["general", HOSTILE])
    for result in (of_mask(PruneMask(16, [5, 9], name=HOSTILE), None), of_recording(recording, None)):
        assert result.sections is not None
        page = report_html(result.title, result.sections(), footer="end")
        assert "<svg" in page
        assert "<script" not in page
        assert len(page) < 60_000


def test_report_loads_nothing_from_outside(own):
    assert not re.search(r"""(src|href)\s*=|@import|url\(""", own)
    assert "default-src 'none'" in own


def test_hostile_text_never_becomes_a_script(own):
    assert "<script>alert" not in own
    assert own.count("<script") == own.count("</script>") == 2 + 3
    assert own.count("&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;") >= 5


def test_figures_survive_the_escaping(own):
    sent = re.findall(r'<script type="application/json">(.*?)</script>', own, flags=re.DOTALL)
    assert len(sent) == 3
    assert json.loads(sent[1])["data"][0]["legendgroup"] == HOSTILE
    assert "layout" not in json.loads(sent[0])["layout"]["template"]


def test_report_leaves_the_given_figure_alone():
    section = sections()[0]
    before = section.figure.to_json()
    report_html("t", [section], footer="f")
    assert section.figure.to_json() == before


def test_table_shows_every_cell_uncut_and_a_dash_for_missing():
    table = pd.DataFrame({"question": ["q" * 200], "score": [np.nan]})
    page = report_html("t", [Section("h", "", table=table)], footer="f")
    assert "q" * 200 in page
    assert "<td>–</td>" in page
    assert "<th>0</th>" not in page


def test_table_keeps_an_index_with_a_meaning():
    table = pd.DataFrame({"score": [0.5]}, index=pd.Index(["math"], name="domain"))
    assert "<th>math</th>" in report_html("t", [Section("h", "", table=table)], footer="f")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_draws_offline_in_a_real_browser(chromium, tmp_path, scheme):
    path = tmp_path / "report.html"
    path.write_text(report_html("Report", sections(), footer="end"), "utf-8")
    errors: list[str] = []
    requests: list[str] = []
    context = chromium.new_context(color_scheme=scheme, offline=True, viewport={"width": 390, "height": 800})
    tab = context.new_page()
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("dialog", lambda dialog: errors.append(dialog.message))
    tab.on("console", lambda line: errors.append(line.text))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(path.as_uri())
    tab.wait_for_function("document.querySelectorAll('.figure .main-svg').length >= 6")
    tab.wait_for_selector(".figure .hm image, .figure .heatmaplayer image", state="attached")
    tab.wait_for_selector(".figure .barlayer path", state="attached")
    inks = tab.evaluate("[...document.querySelectorAll('.figure .xtick text')].map(t => getComputedStyle(t).fill)")
    ink = tab.evaluate("getComputedStyle(document.body).color")
    wide = tab.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert not errors
    assert requests
    assert all(url.startswith(("file:", "data:", "blob:")) for url in requests)
    assert set(inks) == {ink}
    assert ink == {"light": "rgb(27, 31, 39)", "dark": "rgb(232, 235, 240)"}[scheme]
    assert wide == 390

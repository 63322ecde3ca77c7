"""Opening prompts: which table is taken, where its pictures may lie, and what a user may say about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fixtures import listed, png, saved, turns

from vlm_analysis import open_prompts, preview_prompts
from vlm_analysis.errors import PromptError
from vlm_analysis.prompts import reading
from vlm_analysis.prompts.formats import llava, own
from vlm_analysis.prompts.formats.table import recognise
from vlm_analysis.prompts.opening import PromptSource
from vlm_analysis.prompts.prompts import ReadAs


def messages(source: PromptSource, **said: Any) -> list[str]:
    """Why rows, or the whole source, were left out."""
    try:
        return [problem.message for problem in open_prompts(source, **said).problems]
    except PromptError as error:
        return [str(error)]


# Where pictures lie


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder for tables beside a folder of pictures, `../images/a.png`, and one further up."""
    saved(tmp_path / "set" / "images" / "a.png")
    saved(tmp_path / "up.png")
    (tmp_path / "set" / "data").mkdir()
    return tmp_path / "set" / "data"


def naming(folder: Path, *names: object) -> Path:
    (folder / "t.jsonl").write_text("".join(json.dumps({"image": str(name), "question": "?"}) + "\n" for name in names))
    return folder / "t.jsonl"


def test_a_table_on_disk_may_name_pictures_in_the_folder_above_its_own(data: Path) -> None:
    table = naming(data, "../images/a.png", data.parent / "images" / "a.png", f"file://{data.parent}/images/a.png")
    prompts = open_prompts(table)
    assert [prompt.images for prompt in prompts] == [(data.parent / "images" / "a.png",)] * 3
    assert prompts.problems == ()


def test_what_lies_further_up_is_refused_with_the_way_out(data: Path) -> None:
    (data.parent / "images" / "link.png").symlink_to(data.parent.parent / "up.png")
    up = data.parent.parent / "up.png"
    told = messages(naming(data, "../../up.png", up, "../images/link.png", "x/../../../up.png", "../images"))
    assert len(told) == 1
    for problem in preview_prompts(data / "t.jsonl").problems:
        assert "was refused: expected a path inside the folder or archive" in problem.message
        assert 'images="…"' in problem.message
    assert len(preview_prompts(data / "t.jsonl").problems) == 5


def test_neither_the_home_folder_nor_a_shared_dashboard_opens_the_folder_above(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = naming(data, "../images/a.png")
    monkeypatch.setenv("HOME", str(data.parent))
    assert "got '..'" in messages(table)[0]
    monkeypatch.setenv("HOME", str(data.parent / "someone"))
    assert "got '..'" in messages(table)[0]
    monkeypatch.setenv("HOME", "/nowhere")
    assert messages(table) == []
    monkeypatch.setenv("STRATA_SHARED", "1")
    monkeypatch.setenv("STRATA_HOME", str(data.parent.parent))
    assert "got '..'" in messages(table)[0]


def test_images_names_the_folder_of_the_pictures(data: Path) -> None:
    root = data.parent.parent
    prompts = open_prompts(naming(data, "set/images/a.png", root / "up.png", "../../up.png"), images=root)
    assert [prompt.images[0].name for prompt in prompts] == ["a.png", "up.png", "up.png"]  # type: ignore[union-attr]
    assert prompts.problems == ()
    told = messages(naming(data, "a.png", "../../up.png", root / "up.png"), images=str(data.parent / "images"))
    assert ["'..'" in one or "absolute" in one for one in told] == [True, True]


def test_what_is_named_by_another_way_is_not_left_out(data: Path) -> None:
    root = data.parent
    naming(data, "a.png", root / "images" / "a.png")
    (data / "t.jsonl").rename(root / "prompts.jsonl")
    (data / "notes.md").touch()
    (root / "images" / "link.png").symlink_to("a.png")
    prompts = open_prompts(root, images=root / "images")
    assert len(prompts) == 2
    (problem,) = prompts.problems
    assert "got 'data/notes.md', 'images/link.png'" in problem.message


def test_images_may_be_an_archive_and_must_be_there(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    with zipfile.ZipFile(data / "images.zip", "w") as archive:
        archive.writestr("deep/a.png", png("blue"))
    prompts = open_prompts(naming(data, "deep/a.png"), images=data / "images.zip")
    assert prompts[0].load_images()[0].getpixel((0, 0)) == (0, 0, 255)
    for wrong in (data / "nothing", data / "t.jsonl", "", "a\0b", "x" * 5000):
        assert (
            "could not be opened: expected a folder or a .zip or .tar file"
            in messages(data / "t.jsonl", images=wrong)[0]
            or wrong == ""
        )
    monkeypatch.setenv("STRATA_SHARED", "1")
    with pytest.raises(PromptError, match="is not allowed"):
        open_prompts(("t.jsonl", b"{}"), images="/etc")


def test_a_table_that_was_uploaded_alone_may_have_its_pictures_in_its_cells() -> None:
    import base64

    uri = "data:image/png;base64," + base64.b64encode(png("blue")).decode()
    rows = [{"image": uri, "question": "1?"}, {"images": [uri, uri], "question": "2?"}]
    prompts = open_prompts(("t.json", json.dumps(rows).encode()))
    assert [len(prompt.images) for prompt in prompts] == [1, 2]
    assert len({image for prompt in prompts for image in prompt.images}) == 1  # equal bytes are one file
    assert prompts[0].load_images()[0].getpixel((0, 0)) == (0, 0, 255)


BAD_CELLS = {
    "a URI of 50 MB": ("data:image/png;base64," + "A" * 50_000_000, "expected at most 20 MB, got"),
    "a URI of text": ("data:text/plain,hello", "expected data:image/…;base64"),
    "a damaged URI": ("data:image/png;base64,iVBORw0K", "the image could not be"),
    "no base64": ("data:image/png;base64,%%%", "expected base64"),
    "the web": ("https://example.org/a.png", "loads nothing from the web"),
    "null": (None, "no image"),
    "an empty struct": ({"bytes": None, "path": None}, "no image"),
    "a number": (7, "got a int"),
    "nested lists": ([[["a.png"]]], "expected a path or a list of paths"),
    "a struct of text": ({"bytes": "hello", "path": "x"}, "expected bytes, got the text"),
    "a list of numbers": ([1, 2], "got 1"),
}


@pytest.mark.parametrize("case", BAD_CELLS)
def test_a_cell_that_is_no_picture_is_one_message(case: str, folder: Path) -> None:
    cell, message = BAD_CELLS[case]
    good = {"image": "a.png", "question": "?"}
    prompts = open_prompts(listed(folder / "t.json", [good, {"image": cell, "question": "?"}, good]))
    assert len(prompts) == 2
    assert [problem.row for problem in prompts.problems] == [2]
    assert message in prompts.problems[0].message
    assert len(prompts.problems[0].message) < 500


def test_files_in_the_hubs_cache_open_through_its_links_and_no_others(tmp_path: Path) -> None:
    hub = tmp_path / "datasets--me--mine"
    snapshot, blobs = hub / "snapshots" / "0123abc", hub / "blobs"
    (snapshot / "data").mkdir(parents=True)
    saved(blobs / "f00")
    saved(hub / "refs" / "b4d")
    (blobs / "7ab1e").write_text("image,question\na.png,1?\nout.png,2?\n../refs.png,3?\n")
    (snapshot / "data" / "a.png").symlink_to("../../../blobs/f00")
    (snapshot / "data" / "out.png").symlink_to("../../../refs/b4d")
    (snapshot / "data" / "prompts.csv").symlink_to("../../../blobs/7ab1e")
    for source in (snapshot, snapshot / "data", snapshot / "data" / "prompts.csv"):
        prompts = open_prompts(source)
        assert [prompt.question for prompt in prompts] == ["1?"]
        assert "got a link that leads outside" in prompts.problems[0].message
    elsewhere = tmp_path / "mine" / "snapshots" / "0123abc"
    elsewhere.mkdir(parents=True)
    saved(tmp_path / "mine" / "blobs" / "f00")
    (elsewhere / "a.png").symlink_to("../../blobs/f00")
    (elsewhere / "prompts.csv").write_text("image,question\na.png,1?\n")
    assert "got a link that leads outside" in messages(elsewhere)[0]


# Which table


def test_of_several_tables_the_one_that_a_format_recognises_is_taken(folder: Path) -> None:
    listed(folder / "train.json", [{"image": "a.png", "conversations": turns("what?", "red")}])
    (folder / "scores.csv").write_text("model,score\nx,1\n")
    prompts = open_prompts(folder)
    assert prompts.read_as == ReadAs(llava.TITLE, "'conversations' with 'from' and 'value'")
    assert [problem.message.split(" ")[0:2] for problem in prompts.problems] == [["2", "files"]]  # b.png and the scores
    (folder / "mine.csv").write_text("image,question\na.png,?\n")
    with pytest.raises(PromptError, match=r"got 'mine\.csv' and 'train\.json'\. Rename"):
        open_prompts(folder)


def test_shards_are_one_table_whose_rows_are_counted_on(folder: Path) -> None:
    for shard in (0, 1):
        frame = pd.DataFrame({"image": ["a.png", "../b.png"], "question": [f"{shard}?", "?"]})
        (folder / "data").mkdir(exist_ok=True)
        frame.to_csv(folder / "data" / f"test-0000{shard}-of-00002.csv", index=False)
    saved(folder / "data" / "a.png")
    prompts = open_prompts(folder)
    assert [(prompt.id, prompt.question) for prompt in prompts] == [("1", "0?"), ("2", "?"), ("3", "1?"), ("4", "?")]


def test_too_many_tables_are_named_and_none_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        (folder / f"{number}.csv").write_text("image,question\na.png,?\n")
    monkeypatch.setattr(reading, "read_table", lambda *_: pytest.fail("a table was opened"))
    with pytest.raises(PromptError, match=r"got '0\.csv' and '1\.csv' .* and 8 more\. Rename"):
        open_prompts(folder)


def test_a_description_beside_each_picture_is_no_table(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / f"{name}.json").write_text(json.dumps({"shapes": []}))
        (folder / f"{name}.txt").write_text("what?")
    prompts = open_prompts(folder)
    assert len(prompts) == 2
    assert "got 'a.json', 'b.json'" in prompts.problems[0].message


# What a user may say


FRAME = pd.DataFrame({"Datei": ["a.png", "b.png"], "Frage": ["1?", "2?"], "Art": ["x", "y"], "rest": [1, 2]})


def test_columns_say_which_column_is_which(folder: Path) -> None:
    FRAME.to_csv(folder / "t.csv", index=False)
    prompts = open_prompts(folder / "t.csv", columns={"image": "datei", "Question": "Frage "}, domain="Art")
    assert [(p.question, p.domain) for p in prompts] == [("1?", "x"), ("2?", "y")]
    assert prompts.read_as == ReadAs("your columns", "'image' from 'datei', 'Question' from 'Frage '")
    assert "got 'rest'. " in prompts.problems[0].message


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"columns": {"image": "Datei"}}, "expected columns for 'question' and 'image'"),
        (
            {"columns": {"image": "Datei", "question": "Titel"}},
            "columns='Titel' could not be used.* It has 'Datei', 'Frage'",
        ),
        ({"columns": {"picture": "Datei"}}, r"expected names of Strata's columns \(image, .*\), got 'picture'"),
        ({"columns": {"image": "Datei", "question": "Frage"}, "format": "own"}, "do not go together"),
        ({"columns": {"image": "Datei", "question": "Frage"}, "domain": "Ort"}, "domain='Ort' could not be used"),
        ({"format": "lava"}, "format='lava' is unknown: expected one of 'sharegpt'"),
        ({"turns": "all"}, "turns='all' is unknown: expected one of 'first', 'last', 'each'"),
        (
            {},
            r"expected the columns 'image' .* got 'Datei', 'Frage', 'Art', 'rest'\. Rename the columns, or name yours",
        ),
    ],
)
def test_what_does_not_fit_the_table_is_said(said: dict[str, Any], message: str, folder: Path) -> None:
    FRAME.to_csv(folder / "t.csv", index=False)
    with pytest.raises(PromptError, match=message):
        open_prompts(folder / "t.csv", **said)


def test_a_preview_of_an_unknown_table_names_its_columns(folder: Path) -> None:
    FRAME.to_csv(folder / "t.csv", index=False)
    preview = preview_prompts(folder / "t.csv")
    assert (preview.title, preview.reason, preview.prompts) == ("", "", ())
    assert preview.columns == ("datei", "frage", "art", "rest")
    assert "name yours: open_prompts(..., columns=" in preview.problems[0].message
    assert len(preview_prompts(folder / "t.csv", columns={"image": "Datei", "question": "Frage"}).prompts) == 2


def test_a_preview_reads_no_more_than_it_shows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"image": "a.png", "question": f"{number}?"} for number in range(100)]
    table = listed(folder / "t.jsonl", rows)
    taken: list[reading.Raw] = []
    begin = reading.Raw.__post_init__ if hasattr(reading.Raw, "__post_init__") else None
    assert begin is None
    made = reading.Raw

    def noted(*arguments: Any) -> reading.Raw:
        taken.append(made(*arguments))
        return taken[-1]

    monkeypatch.setattr(reading, "Raw", noted)
    assert [prompt.question for prompt in preview_prompts(table).prompts] == ["0?", "1?", "2?"]
    assert [raw.n_taken for raw in taken] == [3]


def test_the_domain_may_come_from_a_column_of_any_format(folder: Path) -> None:
    rows = [{"image": "a.png", "conversations": turns("1?", "x", "2?", "y"), "source": name} for name in ("web", "lab")]
    prompts = open_prompts(listed(folder / "t.json", rows), domain="source", turns="each")
    assert [(p.id, p.question, p.domain) for p in prompts] == [
        ("1-1", "1?", "web"),
        ("1-2", "2?", "web"),
        ("2-1", "1?", "lab"),
        ("2-2", "2?", "lab"),
    ]


def test_ids_of_others_that_come_again_get_the_number_of_their_row(folder: Path) -> None:
    rows = [{"id": "7", "image": "a.png", "conversations": turns(text, "x")} for text in ("1?", "2?", "3?")]
    prompts = open_prompts(listed(folder / "t.json", rows))
    assert [prompt.id for prompt in prompts] == ["7", "7, row 2", "7, row 3"]


def test_two_formats_that_fit_equally_well_are_the_users_to_choose_from(folder: Path) -> None:
    rows = [{"image": "a.png", "conversations": turns("?", "x"), "query": "?", "response": "y"}]
    table = listed(folder / "t.json", rows)
    with pytest.raises(
        PromptError, match=r'in 2 ways: .*Choose: open_prompts\(\.\.\., format="llava" or format="swift"\)'
    ):
        open_prompts(table)
    assert open_prompts(table, format="llava")[0].answer == "x"
    assert open_prompts(table, format="swift")[0].answer == "y"
    assert recognise(reading.Sample("t.csv", ("image", "question")))[0] is own


def test_what_a_folder_holds_beside_its_table_is_named(folder: Path) -> None:
    FRAME.rename(columns={"Datei": "image", "Frage": "question"}).to_csv(folder / "prompts.csv", index=False)
    (folder / "notes.md").touch()
    told = messages(folder)
    assert "1 file was left out: expected files that the table names, got 'notes.md'." in told[-1]

"""The Prompts page, driven as a user would: four ways in, a table of drafts, and the set in use."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import pytest
from acting import words
from drafting import drafts, edit, go, png, press, ran, upload
from PIL import Image
from streamlit.testing.v1 import AppTest

from vlm_analysis import Prompt, PromptSet
from vlm_analysis.ui.common.session import choose, opened, workspace
from vlm_analysis.workbench.shelf import keep_prompts
from vlm_analysis.workbench.workspace import Item

PAGE = "pages/2_prompts.py"
HOSTILE = "![x](http://host.example/p.png)"
OpenPage = Callable[[str], AppTest]


@pytest.fixture
def at(open_page: OpenPage) -> AppTest:
    return open_page(PAGE)


def saved() -> list[Item]:
    return workspace().items("prompts")


def only_saved() -> PromptSet:
    (item,) = saved()
    return opened(item)


def archive(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return buffer.getvalue()


def open_file(at: AppTest, name: str, data: bytes) -> AppTest:
    go(at, "Open a file or folder")
    at.file_uploader[0].set_value((name, data, "application/octet-stream"))
    return ran(at)


def markdown_of(at: AppTest) -> str:
    """All that the browser would treat as markdown."""
    kinds = (at.markdown, at.caption, at.warning, at.error, at.success, at.info, at.subheader, at.toast)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def test_without_prompts_the_page_says_the_one_next_step(at: AppTest) -> None:
    assert [info.value for info in at.info] == [
        'No prompts yet. Press "Use these packs" under "Bundled packs" to start.'
    ]
    assert not at.subheader


def test_bundled_packs_are_used_with_one_click(at: AppTest) -> None:
    press(at, "use-packs")
    (item,) = saved()
    assert item.name == "Bundled packs: general, math"
    assert item.details == {"n": 90, "domains": ["general", "math"], "n_domains": 2}
    assert at.dataframe[0].value.values.tolist() == [["general", 45, 45], ["math", 45, 45]]
    assert len(at.get("image")) == 12


def test_using_the_same_packs_twice_keeps_one_set(at: AppTest) -> None:
    press(press(at, "use-packs"), "use-packs")
    assert len(saved()) == 1


def test_no_pack_picked_leaves_nothing_to_press(at: AppTest) -> None:
    at.pills(key="packs").set_value([])
    assert ran(at).button(key="use-packs").disabled


def test_the_gallery_shows_one_domain_and_its_last_page(at: AppTest) -> None:
    press(at, "use-packs")
    (item,) = saved()
    at.selectbox(key=f"domain-{item.id}").set_value("math")
    ran(at)
    at.session_state[f"page-{item.id}-math"] = 4
    assert len(ran(at).get("image")) == 45 - 3 * 12


def test_uploaded_images_become_a_saved_set(at: AppTest) -> None:
    upload(at, ("a.png", png("red")), ("b.png", png("blue")))
    edit(at, {0: {"question": "What?", "domain": "one"}, 1: {"question": "Why?", "answer": "so", "domain": "two"}})
    press(at, "save-drafts-button")
    prompts = only_saved()
    assert [(p.id, p.question, p.domain, p.answer) for p in prompts] == [
        ("a.png", "What?", "one", None),
        ("b.png", "Why?", "two", "so"),
    ]
    assert prompts[1].load_images()[0].getpixel((0, 0)) == (0, 0, 255)
    assert at.subheader[0].value == "In use: My images"
    assert at.success[0].value.startswith("Saved 2 prompts as 'My images'".replace(".", r"\."))


def test_a_corrupt_upload_is_named_and_the_others_stay(at: AppTest) -> None:
    upload(at, ("good.png", png()), ("bad.png", b"not an image"), ("cut.png", png()[:60]))
    assert [d.name for d in drafts(at)] == ["good.png"]
    assert "bad\\.png" in at.warning[0].value
    assert "cut\\.png" in at.warning[0].value
    assert "good\\.png" not in at.warning[0].value


def test_a_row_without_a_question_is_named_and_the_others_are_saved(at: AppTest) -> None:
    upload(at, ("asked.png", png()), ("blank.png", png()))
    edit(at, {0: {"question": "What?"}, 1: {"question": "  "}})
    press(at, "save-drafts-button")
    assert [p.id for p in only_saved()] == ["asked.png"]
    assert "blank\\.png: the question is missing".replace(":", "\\:") in at.warning[0].value
    assert "asked\\.png" not in at.warning[0].value


def test_rows_that_are_all_unfinished_save_nothing(at: AppTest) -> None:
    press(upload(at, ("a.png", png())), "save-drafts-button")
    assert not saved()
    assert "Nothing was saved" in at.warning[0].value


def test_only_the_set_in_hand_is_shown(at: AppTest) -> None:
    press(at, "use-packs")
    upload(at, ("a.png", png()))
    assert not at.subheader
    assert "In use until you save these rows: Bundled packs" in words(at)
    edit(at, {0: {"question": "What?"}})
    press(at, "save-drafts-button")
    assert at.subheader[0].value == "In use: My images"
    go(at, "Bundled packs")
    assert at.subheader
    open_file(at, "mine.zip", archive({"prompts.csv": b"image,question\na.png,Why?\n", "a.png": png()}))
    assert not at.subheader
    press(at, "put-away-button")
    assert at.subheader


def test_drafts_survive_another_tab(at: AppTest) -> None:
    upload(at, ("a.png", png()))
    edit(at, {0: {"question": "What?"}})
    go(at, "Saved sets")
    go(at, "Your images")
    edit(at, {0: {"answer": "this"}})
    assert [(d.question, d.answer) for d in drafts(at)] == [("What?", "this")]


def test_drafts_survive_another_page_and_wait_in_their_tab(open_page: OpenPage) -> None:
    at = open_page("app.py")
    at.switch_page(PAGE)
    upload(at, ("a.png", png()))
    edit(at, {0: {"question": "What?"}})
    at.switch_page("pages/1_model.py")
    assert "Model" in [title.value for title in ran(at).title]
    at.switch_page(PAGE)
    ran(at)
    edit(at, {0: {"answer": "this"}})
    press(at, "save-drafts-button")
    assert [(p.question, p.answer) for p in only_saved()] == [("What?", "this")]


def test_a_zip_with_a_path_outside_lists_it_and_keeps_the_good_row(at: AppTest) -> None:
    table = b"image,question\n../evil.png,What?\ngood.png,Why?\n"
    data = archive({"prompts.csv": table, "good.png": png(), "../evil.png": png()})
    open_file(at, "charts.zip", data)
    assert any("../evil.png" in message for message in at.dataframe[0].value["message"])
    press(at, "take-button")
    assert "Saved 1 prompt in 1 domain as 'charts\\.zip'" in markdown_of(at)
    assert any("../evil.png" in message for message in at.dataframe[0].value["message"])
    assert [p.question for p in only_saved()] == ["Why?"]
    assert saved()[0].name == "charts.zip"


def test_a_zip_that_is_none_gives_one_error(at: AppTest) -> None:
    open_file(at, "charts.zip", b"PK, but no more")
    assert len(at.error) == 1
    assert "charts\\.zip" in at.error[0].value
    assert not saved()


def test_a_csv_alone_is_opened_from_its_folder(at: AppTest, tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "prompts.csv").write_text("image,question\na.png,What?\n")
    go(at, "Open a file or folder")
    at.text_input(key="path-text").set_value(f'"{tmp_path}"')
    press(at, "path-button")
    press(at, "take-button")
    assert [p.question for p in only_saved()] == ["What?"]


@pytest.mark.parametrize("path", ["", "/nowhere/at all", "\0", "~nobody-here/x", "x" * 5000])
def test_a_path_that_leads_nowhere_gives_one_error(at: AppTest, path: str) -> None:
    go(at, "Open a file or folder")
    at.text_input(key="path-text").set_value(path)
    press(at, "path-button")
    assert len(at.error) == 1


def test_hostile_names_are_shown_and_never_live(at: AppTest) -> None:
    upload(at, (f"{HOSTILE}.png", png()), (f"bad {HOSTILE}.png", b"no"))
    assert HOSTILE not in markdown_of(at)
    edit(at, {0: {"question": HOSTILE, "domain": HOSTILE, "answer": HOSTILE}})
    at.text_input(key="name-drafts").set_value(HOSTILE)
    press(at, "save-drafts-button")
    assert HOSTILE not in markdown_of(at)
    go(at, "Saved sets")
    press(at, "delete-saved")
    live = markdown_of(at)
    assert "http\\://\u2060host" in live
    assert HOSTILE not in live
    assert HOSTILE in [text.value for text in at.text]
    open_file(at, f"{HOSTILE}.zip", b"no")
    assert HOSTILE not in markdown_of(at)
    table = f"image,question,domain,id\nx.png,Q,{HOSTILE},{HOSTILE}\na.png,Q,{HOSTILE},2\n".encode()
    open_file(at, f"{HOSTILE}.zip", archive({"prompts.csv": table, "a.png": png()}))
    assert HOSTILE not in markdown_of(at)
    assert HOSTILE in at.dataframe[0].value["id"].tolist()


def test_deleting_a_set_needs_a_second_click(at: AppTest) -> None:
    press(at, "use-packs")
    go(at, "Saved sets")
    press(at, "delete-saved")
    assert len(saved()) == 1
    press(at, "delete-no")
    assert not at.warning
    assert len(saved()) == 1
    press(at, "delete-saved")
    press(at, "delete-yes")
    assert not saved()
    assert at.info


def test_a_saved_set_is_renamed_and_used_again(at: AppTest) -> None:
    press(at, "use-packs")
    (first,) = saved()
    at.pills(key="packs").set_value(["math"])
    press(ran(at), "use-packs")
    assert at.subheader[0].value == "In use: Bundled packs\\: math"
    go(at, "Saved sets")
    at.selectbox(key="saved-set").set_value(first.id)
    press(ran(at), "use-saved")
    assert at.subheader[0].value == "In use: Bundled packs\\: general, math"
    at.text_input(key=f"rename-{first.id}").set_value("Both packs")
    press(at, "rename-button")
    assert at.subheader[0].value == "In use: Both packs"


def test_a_damaged_set_in_use_is_an_error_on_the_page(at: AppTest) -> None:
    press(at, "use-packs")
    (item,) = saved()
    (item.path / "prompts.jsonl").write_text("{")
    opened.__globals__["_opened"].clear()
    assert len(ran(at).error) == 1


def test_prompts_of_one_picture_are_one_group_and_a_logo_is_named(open_page: OpenPage) -> None:
    logo, *others = (Image.effect_noise((9, 9), 50 + number) for number in range(6))
    pairs = [(logo, others[0]), (logo, others[1]), (logo, others[2]), (others[3],), (others[3],)]
    prompts = PromptSet(Prompt(pair, f"question {place}", id=f"p{place}") for place, pair in enumerate(pairs))
    choose("prompts", keep_prompts(workspace(), prompts, "logos"))
    said = words(ran(open_page(PAGE)))
    assert "5 prompts in 4 groups: prompts that share a picture" in said
    assert "Picture 1 of 'p0' is in 3 of 5 prompts, as a logo or a blank would be" in said


def test_the_gallery_shows_accepted_answers_the_task_and_where_pictures_stand(at: AppTest) -> None:
    pictures = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    prompt = Prompt(pictures, "from <image 2> to <image 1>?", answers=("net", "a net"), task="changes")
    keep_prompts(workspace(), PromptSet([prompt]), "of two pictures")
    ran(at)
    said = [text.value for text in at.get("text")]
    assert {"from [picture 2] to [picture 1]?", "net\na net", "changes"} <= set(said)
    assert {"Any of 2 accepted answers", "Task"} <= {caption.value for caption in at.caption}

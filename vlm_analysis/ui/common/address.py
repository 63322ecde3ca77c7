"""The address: what a page shows, so that another browser shows the same there, and back and forward go through it.

    address -> `told` -> the session's choices -> the page -> `tell` -> `write_address` -> address

What the address says is news on a session's first run, and after back, forward or another address. Else the session decides, and
the address follows, each change a step of the browser's history. Links of the menu say what the page they lead to will say, so that it
begins with no step of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.shorthand import shortened
from vlm_analysis.ui.common.held import tower_of, vision_of
from vlm_analysis.ui.common.session import PROJECT, WORK_OF, choose, chosen, look_at, project, workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.workbench.projects import DEFAULT

ITEMS = {  # what the address calls a saved item, and the kinds that it may be of
    "recording": ("recordings",),
    "evaluation": ("evaluations",),
    "comparison": ("comparisons",),
    "recovery": ("ledgers",),
    "contest": ("contests",),
    "story": ("stories", "comparisons"),
}
# Layers that the edit in the editor drops, those that vision tokens skip, and those of the vision encoder that it drops.
LAYERS = ("cut", "absent", "frozen", "tower")
NARROW = "narrow"  # the key of which layers are narrow in it: what they keep are too many numbers for an address
EDIT = (*LAYERS, NARROW)
NAMES = ("project", *ITEMS, "mask", *EDIT, "domain", "metric")
LINKS = {  # what a page tells where it opens, by its path
    "app.py": ("story",),
    "pages/1_model.py": (),
    "pages/2_prompts.py": (),
    "pages/3_similarity.py": ("recording",),
    "pages/4_masks.py": ("recording", *EDIT),
    "pages/5_evaluate.py": ("evaluation", "mask", *EDIT),
    "pages/6_depth_or_width.py": ("contest",),
    "pages/7_export.py": ("mask", *EDIT),
    "pages/8_glossary.py": (),
}
_SEEN = "address:seen"  # what the address said last, by name
_TOLD = "address:told"  # what the page that is drawn tells, by name
_KNOWN = "address:known"  # what any page told last, by name
_DRAWN = "address:drawn"  # what the links in the menu say, by name
_LINKED = (
    "address:linked"  # what the link that led to this page may have said, by name: the session may have gone on since
)
_AT = "address:at"  # the path of the page that was drawn last
_MOST_SHOWN = 60


def told(name: str) -> str | None:
    """Return what the address says of `name` if that is news; None otherwise."""
    value, seen = st.query_params.get(name), st.session_state.setdefault(_SEEN, {})
    if value is None or value == seen.get(name):
        return None
    seen[name] = value
    return None if value == st.session_state.get(_LINKED, {}).get(name) else value


def tell(name: str, value: str | None) -> None:
    """Note what the page shows, for its address; None or "" is not told."""
    st.session_state.setdefault(_TOLD, {})[name] = value


def tell_edit(edit: Edit | None, width: str = "") -> None:
    """Note the layers of the edit in the editor, with which the page works, and the key of its width; None where it works with another."""
    parts: tuple[tuple[int, ...], ...] = ((),) * len(LAYERS)
    tell(NARROW, width if edit is not None else None)
    if edit is not None:
        skipped = vision_of(edit)
        parts = edit.dropped, skipped.absent, skipped.frozen, tower_of(edit).dropped
    for name, layers in zip(LAYERS, parts, strict=True):
        tell(name, shortened(layers, " "))


def write_address() -> None:
    """Write what the page told into the address; call it where a page ends."""
    there, telling = st.query_params.to_dict(), st.session_state.get(_TOLD, {})
    now = {name: value for name in NAMES if (value := telling.get(name))}
    st.session_state[_SEEN] = now
    st.session_state.setdefault(_KNOWN, {}).update(telling)
    for name in [name for name in NAMES if name in there and name not in now]:
        del st.query_params[name]
    if changed := {name: value for name, value in now.items() if there.get(name) != value}:
        st.query_params.update(changed)


def arrive() -> list[tuple[str, str]]:
    """Work with the saved items that the address names, where a page begins; return those that are not here, with their names."""
    state, page = st.session_state, st.session_state.get("page")
    path = "" if page is None else page.path
    state[_LINKED] = {} if state.get(_AT) == path else state.get(_DRAWN, {})
    state[_TOLD], state[_AT], unknown = {}, path, []
    if (named := told("project")) is not None and not _arrive_in(named):
        unknown.append(("project", named))
    tell("project", project() or (DEFAULT if workspace().projects() else None))  # only where there is a choice
    for name, kinds in ITEMS.items():
        if (value := told(name)) is None:
            continue
        item = next((item for kind in kinds if (item := workspace().find(kind, value)) is not None), None)
        if item is None:
            unknown.append((name, value))
        else:
            look_at(item.model)
            choose(kinds[0], item)
    return unknown


def _arrive_in(name: str) -> bool:
    """Work in the project that the address names; False where it is not here: an address makes none."""
    there = ["", *workspace().projects()]
    if found := [one for one in there if (one or DEFAULT).casefold() == name.casefold()]:
        go_to(found[0])
    return bool(found)


def go_to(name: str) -> None:
    """Work in the project of this name from now on, with the mask that was edited last there; the loaded model stays."""
    if name != project():
        st.session_state[PROJECT] = name
        for key in (_KNOWN, WORK_OF, "mask_model"):
            st.session_state.pop(key, None)


def links() -> dict[str, dict[str, str]]:
    """Return what the links to pages say, by path: what the pages will say themselves, as far as the session knows yet."""
    known = dict(st.session_state.get(_KNOWN, {}))
    known["project"] = st.session_state.get(_TOLD, {}).get("project")
    for name in ("recording", "evaluation"):
        item = chosen(ITEMS[name][0])
        known[name] = None if item is None else item.id
    st.session_state[_DRAWN] = known
    return {
        path: {name: value for name in ("project", *names) if (value := known.get(name))}
        for path, names in LINKS.items()
    }


def tell_item(kind: str, item_id: str | None) -> None:
    """Tell the item of a kind that the page shows."""
    for name, kinds in ITEMS.items():
        if kinds[0] == kind:
            tell(name, item_id)


def follow(name: str, key: str, choices: Sequence[str] | Mapping[str, str]) -> None:
    """Take what the address says of `name` as the choice of the widget with this key, right before it is drawn.

    `choices` are what the address may say; a mapping has the widget's own words for them.
    """
    if (value := told(name)) is not None:
        if value in choices:
            st.session_state[key] = choices[value] if isinstance(choices, Mapping) else value
        else:
            say_unknown(name, value, choices)


def check_tab(key: str, names: Collection[str]) -> None:
    """Say where the address names a tab that the page does not have, right before the tabs of this key are drawn."""
    value = st.query_params.get(key)
    if value is not None and value not in names:
        say_unknown("tab", value, names)


def say_unknown(what: str, value: str, choices: Collection[str] = ()) -> None:
    """Say in a line what the address names that is not here."""
    known = f" There are {', '.join(map(str, choices))}." if 0 < len(choices) <= 12 else ""
    shown = value[:_MOST_SHOWN] + "…" * (len(value) > _MOST_SHOWN)
    st.caption(
        f":material/link_off: {escaped(f'The address names a {what} that is not here, {shown!r}: it is left out.{known}')}"
    )

"""Tables of docs/reference/compatibility.md: supported parts of Plivo. `python -m tests.test_compatibility` writes
them."""

from __future__ import annotations

import argparse
import inspect
import re
from pathlib import Path
from typing import Any, get_args

import plivo.xml

from ari_conf.core import elements as el
from ari_conf.documents.parser import parse
from ari_conf.settings import Settings
from ari_conf.web.app import create
from ari_conf.web.plivo_calls import CALLS, NAMES, OFFERED, not_offered

PAGE = Path(__file__).parents[1] / "docs/reference/compatibility.md"
TABLES = re.compile(r"(<!-- (\w+): made by `python -m tests\.test_compatibility` -->\n).*?(?=<!-- /\2 -->)", re.DOTALL)
RUN: tuple[type, ...] = (*get_args(el.Element), el.Number)


def attributes() -> str:
    lines = ["| element | attribute | default | allowed |", "|---|---|---|---|"]
    for element in RUN:
        rows = el.attribute_fields(element) or {"": (None, None)}
        for name, (field, _) in rows.items():
            cells = (f"`{name}`", _shown(field.default), _allowed(element, name)) if name and field else ("", "", "")
            lines.append(f"| {element.__name__} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default is None or default in ("", ()) else f"`{default}`"


def _allowed(element: type, name: str) -> str:
    return el.attribute_fields(element)[name][1].allowed


def skipped() -> str:
    return ", ".join(f"`<{name}>`" for name in el.UNSUPPORTED_ELEMENTS) + "\n"


def calls() -> str:
    offered = _offered()
    lines = ["| Plivo's call | runs here | what it is |", "|---|---|---|"]
    for methods, path, what in CALLS:
        there = [method for method in methods.split(", ") if (method, _bare(path)) in offered]
        runs = "yes" if there == methods.split(", ") else ", ".join(there) or "no"
        lines.append(f"| {methods} `{path or '(the account)'}` | {runs} | {what} |")
    return "\n".join(lines) + "\n"


def _offered() -> set[tuple[str, str]]:
    described = create(Settings()).openapi()["paths"]
    below = {path.partition("{auth_id}/")[2]: methods for path, methods in described.items() if "{auth_id}/" in path}
    # The path of the account itself belongs to administrators here.
    return {(method.upper(), _bare(path)) for path, methods in below.items() for method in methods if path}


def _bare(path: str) -> str:
    return re.sub(r"\{\w+\}", "{}", path)


def written() -> str:
    made = {"attributes": attributes, "skipped": skipped, "calls": calls}
    return TABLES.sub(lambda found: found[1] + made[found[2]](), PAGE.read_text())


def test_the_page_is_current() -> None:
    assert TABLES.search(PAGE.read_text())
    assert PAGE.read_text() == written()


def sdk_elements() -> dict[str, set[str]]:
    """Return Plivo's elements and their attributes, as its SDK has them."""
    found: dict[str, set[str]] = {}
    for name, kind in inspect.getmembers(plivo.xml, inspect.isclass):
        if name.endswith("Element") and kind.__module__.startswith("plivo.xml"):
            attributes = {el._camel(method[4:]) for method in dir(kind) if method.startswith("set_")}
            found[getattr(kind, "_name", name.removesuffix("Element"))] = attributes
    return found


def test_each_element_and_attribute_of_plivo_s_runs_or_is_named() -> None:
    known = {kind.__name__: kind for kind in RUN} | {"User": el.Number}
    for name, attributes in sdk_elements().items():
        if name in known:
            have = {*el.attribute_fields(known[name]), *el.IGNORED_ATTRIBUTES.get(name, ())}
            assert {a.lower() for a in attributes} <= {a.lower() for a in have}, name
        elif name[0].isupper() and name not in ("Response", "PlivoXML"):
            (warning,) = parse(f"<Response><{name}/></Response>".encode()).warnings
            assert warning.startswith(f"{name} is not supported: it is skipped, including its content")


def test_an_unsupported_part_of_plivo_is_named() -> None:
    for name in NAMES - set(OFFERED):
        for path in (f"/v1/Account/MA1/{name}/", f"/v1/Account/MA1/{name}/x/Play/"):
            refusal = f"Plivo's {name}/ is not offered here; docs/reference/compatibility.md lists what is"
            assert not_offered(path) == refusal
    assert "the account itself" in str(not_offered("/v1/Account/MA1/"))
    assert "the account itself" in str(not_offered("/v1/Account/MA1//")), "as Plivo's Node SDK asks"
    assert "lookup" in str(not_offered("/v1/Number/14155550100/"))
    for path in ("/v1/Account/MA1/Conference/x/Fly/", "/v1/Account/MA1/Nonsense/", "/v1/Account/", "/Call/", ""):
        assert not_offered(path) is None


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(written())

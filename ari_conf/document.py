"""XML text -> elements. Pure: what fetched the text, and what runs the elements, is elsewhere.

Each complaint names element, attribute, value and what is allowed. What a mistake costs:

- an attribute's value: that value; the default is used, with a warning
- an element that is unknown, or that can't stand where it stands: that element, with a warning
- XML itself, a URL, a conference's name: the whole document (InvalidDocument)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any
from xml.etree.ElementTree import Element as Node
from xml.etree.ElementTree import ParseError
from xml.parsers.expat import ErrorString

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ari_conf.core import elements as el
from ari_conf.errors import InvalidDocument
from ari_conf.http import retry
from ari_conf.media.ssml import canonical

MAX_BYTES = 100 * 1024
MAX_DEPTH = 32
MAX_ELEMENTS = 2000
MAX_WARNINGS = 50
MAX_NAME = 200
REMEMBERED, REMEMBERED_BYTES = 1024, 4096
"""How many documents are remembered, and up to which length."""


@dataclass(frozen=True, slots=True)
class Document:
    elements: tuple[el.Element, ...]
    warnings: tuple[str, ...] = ()


def parse(text: bytes) -> Document:
    """The document's elements in order; none is a document as well: it ends the call. Raises InvalidDocument."""
    return _known(text) if len(text) <= REMEMBERED_BYTES else _read(text)


def _read(text: bytes) -> Document:
    warnings: list[str] = []
    found = _children(_root(text), tuple(_READERS), warnings)
    return Document(found, _bounded(warnings))


# Mostly all members of a conference have the same document: it is read, and kept, once for all of them.
_known = lru_cache(REMEMBERED)(_read)


def parse_sounds(text: bytes) -> tuple[tuple[el.Prompt, ...], tuple[str, ...]]:
    """A sound document's Play, Speak and Wait in order, and the warnings. Raises InvalidDocument."""
    warnings: list[str] = []
    found = _children(_root(text), ("Play", "Speak", "Wait"), warnings)
    return tuple(e for e in found if isinstance(e, el.Prompt)), _bounded(warnings)


def _root(text: bytes) -> Node:
    # "not well-formed, root not Response, over 100 KB, DTD or entities"
    if len(text) > MAX_BYTES:
        raise InvalidDocument(f"the document has {len(text)} bytes; at most {MAX_BYTES} (100 KB) are allowed")
    if not text.strip():
        raise InvalidDocument("the document is empty; it must be XML with the root <Response>")
    try:
        root: Node = fromstring(text, forbid_dtd=True)
    except ParseError as error:
        line, column = error.position
        why = ErrorString(error.code) or "can't be read"
        raise InvalidDocument(f"the document is not well-formed XML: {why}, line {line}, column {column + 1}") from None
    except DefusedXmlException:
        raise InvalidDocument("the document has a DTD or entities; neither is allowed") from None
    except (ValueError, LookupError) as error:
        raise InvalidDocument(f"the document's encoding can't be read: {error}") from None
    _bound(root)
    if root.tag != "Response":
        hint = "; names are case-sensitive" if root.tag.lower() == "response" else ""
        raise InvalidDocument(f"the document's root is <{_cut(root.tag)}>; it must be <Response>{hint}")
    return root


def _bound(root: Node) -> None:
    # Before anything recurses. A document of 100 KB can nest 14,000 deep.
    count, level = 0, [root]
    for _ in range(MAX_DEPTH):
        count += len(level)
        level = [child for node in level for child in node]
    if level:
        raise InvalidDocument(f"the document's elements are nested too deep; at most {MAX_DEPTH} levels are allowed")
    if count > MAX_ELEMENTS:
        raise InvalidDocument(f"the document has {count} elements; at most {MAX_ELEMENTS} are allowed")


def _bounded(warnings: list[str]) -> tuple[str, ...]:
    more = len(warnings) - MAX_WARNINGS
    return tuple(warnings[:MAX_WARNINGS]) + ((f"{more} more complaints are not listed",) if more > 0 else ())


def _children(parent: Node, allowed: Iterable[str], warnings: list[str]) -> tuple[el.Element, ...]:
    """The elements that can be run; of what can't, and of text between them, a warning each."""
    allowed = tuple(allowed)
    found: list[el.Element] = []
    _stray(parent.text, parent.tag, warnings)
    for child in parent:
        if child.tag in allowed:
            element = _READERS[child.tag](child, warnings)
            if element is not None:
                found.append(element)
        else:
            warnings.append(_not_run(child.tag, parent.tag, allowed))
        _stray(child.tail, parent.tag, warnings)
    return tuple(found)


def _stray(text: str | None, where: str, warnings: list[str]) -> None:
    if text and text.strip():
        warnings.append(f'{where}: the text "{_cut(text.strip())}" between the elements is ignored')


def _not_run(tag: str, where: str, allowed: tuple[str, ...]) -> str:
    if tag in el.SKIPPED_ELEMENTS:
        return f"{tag} is not run here: it is skipped, with all that is in it"
    if tag in _READERS:
        return (
            f"{tag} can't stand in {where} (only {', '.join(allowed)}): it is skipped"
            if allowed
            else (f"{tag} can't stand in {where}: it is skipped")
        )
    return f"<{_cut(tag)}> is not an element that is known: it is skipped{_meant(tag, allowed)}"


def _meant(name: str, known: Iterable[str]) -> str:
    by_lower = {k.lower(): k for k in known}
    near = get_close_matches(name.lower()[:60], by_lower, n=1, cutoff=0.75)
    return f"; did you mean {by_lower[near[0]]}? Names are case-sensitive" if near else ""


def _attributes(node: Node, element: type, warnings: list[str]) -> dict[str, Any]:
    """By the field's name. "A bad attribute value (decided): the default is used, and a warning"; a bad URL raises."""
    known = el.attributes_of(element)
    values: dict[str, Any] = {}
    for name, text in node.attrib.items():
        if name not in known:
            if name not in el.IGNORED_ATTRIBUTES.get(node.tag, ()):
                warnings.append(f"{node.tag}: the attribute {_cut(name)} is unknown and ignored{_meant(name, known)}")
            continue
        field, read = known[name]
        given = f'{node.tag}: {name}="{_cut(text)}"'
        try:
            values[field.name] = value = read(text)
            if isinstance(value, str) and "://" in value:
                # "A value out of range is clamped, an unknown key ignored, both with a warning": said once, here.
                warnings += (f"{node.tag}: {name}: {warning}" for warning in retry.parse(value)[2])
        except el.NotAUrl as error:
            raise InvalidDocument(f"{given} is not allowed; it must be {error}") from None
        except el.NotAllowed as error:
            warnings.append(f"{given} is not allowed ({error}); {_shown(field.default)} is used")
    return values


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default in (None, "", ()) else str(default)


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _text(node: Node) -> str:
    return "".join(node.itertext()).strip()


def _address(node: Node) -> str:
    text = _text(node)
    try:
        found = el.url(text)
    except el.NotAUrl:
        found = None
    if found is None:
        raise InvalidDocument(f'{node.tag}: its text "{_cut(text)}" must be an absolute http or https URL')
    return found


def _no_children(node: Node, warnings: list[str]) -> None:
    warnings += [_not_run(child.tag, node.tag, ()) for child in node]


def _play(node: Node, warnings: list[str]) -> el.Play:
    _no_children(node, warnings)
    return el.Play(_address(node), **_attributes(node, el.Play, warnings))


def _redirect(node: Node, warnings: list[str]) -> el.Redirect:
    _no_children(node, warnings)
    return el.Redirect(_address(node), **_attributes(node, el.Redirect, warnings))


def _wait(node: Node, warnings: list[str]) -> el.Wait:
    _children(node, (), warnings)
    return el.Wait(**_attributes(node, el.Wait, warnings))


def _hangup(node: Node, warnings: list[str]) -> el.Hangup:
    _children(node, (), warnings)
    return el.Hangup(**_attributes(node, el.Hangup, warnings))


def _get_digits(node: Node, warnings: list[str]) -> el.GetDigits:
    prompt = _children(node, ("Play", "Speak", "Wait"), warnings)
    return el.GetDigits(
        tuple(e for e in prompt if isinstance(e, el.Prompt)), **_attributes(node, el.GetDigits, warnings)
    )


def _pre_answer(node: Node, warnings: list[str]) -> el.PreAnswer:
    found = _children(node, ("Speak", "Play", "Wait", "GetDigits", "Redirect"), warnings)
    _attributes(node, el.PreAnswer, warnings)
    return el.PreAnswer(tuple(e for e in found if isinstance(e, el.Prompt | el.GetDigits | el.Redirect)))


def _conference(node: Node, warnings: list[str]) -> el.Conference:
    # "The text is the conference's name: trimmed, case-sensitive, may hold spaces and any Unicode, at most 200
    # characters; empty is an invalid document."
    _no_children(node, warnings)
    name = _text(node)
    if not name:
        raise InvalidDocument("Conference: it has no name; its text is the conference's name")
    if len(name) > MAX_NAME:
        raise InvalidDocument(f"Conference: its name has {len(name)} characters; at most {MAX_NAME} are allowed")
    return el.Conference(name, **_attributes(node, el.Conference, warnings))


def _speak(node: Node, warnings: list[str]) -> el.Speak | None:
    attributes = _attributes(node, el.Speak, warnings)
    markup = canonical(node, warnings)
    if not markup:
        warnings.append("Speak: it has no text; it is skipped")
        return None
    return el.Speak(markup, **attributes)


_READERS: dict[str, Callable[[Node, list[str]], el.Element | None]] = {
    "Play": _play,
    "Speak": _speak,
    "Wait": _wait,
    "Hangup": _hangup,
    "Redirect": _redirect,
    "GetDigits": _get_digits,
    "PreAnswer": _pre_answer,
    "Conference": _conference,
}

"""XML text -> elements. Pure: what fetched the text, and what runs the elements, is elsewhere.

Each complaint names element, attribute, value and what is allowed. What a mistake costs:

- an attribute's value: that value; the default is used, with a warning
- an element that is unknown, or that can't stand where it stands: that element, with a warning
- XML itself, a URL, a conference's name: the whole document (InvalidDocument)

What a document costs is bounded, whatever is in it: elements beyond the limits end the reading where they stand,
and mistakes beyond MAX_WARNINGS are only counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from typing import Any, NoReturn, Self
from xml.etree.ElementTree import Element as Node
from xml.etree.ElementTree import TreeBuilder
from xml.parsers.expat import ErrorString, ExpatError, ParserCreate

from ari_conf.core import elements as el
from ari_conf.errors import InvalidDocument
from ari_conf.http import retry
from ari_conf.media.ssml import canonical

MAX_BYTES = 100 * 1024
MAX_DEPTH = 32
MAX_ELEMENTS = 2000
MAX_ATTRIBUTES = 64
"""Of one element that are read; Conference knows 27."""
MAX_WARNINGS = 50
MAX_WARNING = 500
"""Characters of one: it is kept among the account's problems, and stands in a log line."""
MAX_NAME = 200
MEANT_CHARACTERS = 40
"""The longest name for which one that was meant is looked for; the longest known has 22."""
SHORT_BYTES = 4096
"""A document of up to so many bytes is read in a few milliseconds; a longer one takes up to ten times as long."""
REMEMBERED = 1024
"""How many short documents are remembered."""


class _Warnings(list[str]):
    """The first MAX_WARNINGS; of all others only the number: a document may hold thousands of mistakes."""

    more = 0

    @property
    def full(self) -> bool:
        """What a further one says is of no interest."""
        return len(self) >= MAX_WARNINGS

    def append(self, warning: str) -> None:
        if self.full:
            self.more += 1
        else:
            super().append(_cut(warning, MAX_WARNING))

    def __iadd__(self, warnings: Iterable[str]) -> Self:  # type: ignore[override,misc]  # typeshed wants + to take as much
        for warning in warnings:
            self.append(warning)
        return self

    def told(self) -> tuple[str, ...]:
        return (*self, f"{self.more} more complaints are not listed") if self.more else tuple(self)


@dataclass(frozen=True, slots=True)
class Document:
    elements: tuple[el.Element, ...]
    warnings: tuple[str, ...] = ()


def parse(text: bytes) -> Document:
    """The document's elements in order; none is a document as well: it ends the call. Raises InvalidDocument."""
    return _known(text) if len(text) <= SHORT_BYTES else _read(text)


def _read(text: bytes) -> Document:
    warnings = _Warnings()
    found = _children(_root(text, warnings), tuple(_READERS), warnings)
    return Document(found, warnings.told())


# Mostly all members of a conference have the same document: it is read, and kept, once for all of them.
_known = lru_cache(REMEMBERED)(_read)


def parse_sounds(text: bytes) -> tuple[tuple[el.Prompt, ...], tuple[str, ...]]:
    """A sound document's Play, Speak and Wait in order, and the warnings. Raises InvalidDocument."""
    return _known_sounds(text) if len(text) <= SHORT_BYTES else _read_sounds(text)


def _read_sounds(text: bytes) -> tuple[tuple[el.Prompt, ...], tuple[str, ...]]:
    warnings = _Warnings()
    found = _children(_root(text, warnings), ("Play", "Speak", "Wait"), warnings)
    return tuple(e for e in found if isinstance(e, el.Prompt)), warnings.told()


_known_sounds = lru_cache(REMEMBERED)(_read_sounds)


class _Bounded(TreeBuilder):
    """What is too deep, or has too many elements, ends here, before more of it is read: 100 KB hold 25,000 elements."""

    def __init__(self, warnings: _Warnings) -> None:
        super().__init__()
        self._warnings = warnings
        self._elements = self._depth = 0

    def start(self, tag: str, attributes: dict[str, str], /) -> Node:
        self._elements += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise InvalidDocument(
                f"the document's elements are nested too deep; at most {MAX_DEPTH} levels are allowed"
            )
        if self._elements > MAX_ELEMENTS:
            raise InvalidDocument(f"the document has too many elements; at most {MAX_ELEMENTS} are allowed")
        if len(attributes) > MAX_ATTRIBUTES:
            self._warnings.append(
                f"{_cut(tag)}: it has {len(attributes)} attributes; only the first {MAX_ATTRIBUTES} are read"
            )
            attributes = dict(islice(attributes.items(), MAX_ATTRIBUTES))
        return super().start(tag, attributes)

    def end(self, tag: str, /) -> Node:
        self._depth -= 1
        return super().end(tag)

    def doctype(self, *_: object) -> NoReturn:
        raise InvalidDocument("the document has a DTD or entities; neither is allowed")


def _root(text: bytes, warnings: _Warnings) -> Node:
    # "not well-formed, root not Response, over 100 KB, DTD or entities"
    if len(text) > MAX_BYTES:
        raise InvalidDocument(f"the document has {len(text)} bytes; at most {MAX_BYTES} (100 KB) are allowed")
    if not text.strip():
        raise InvalidDocument("the document is empty; it must be XML with the root <Response>")
    builder = _Bounded(warnings)
    # Without namespaces: with them expat copies the whole URI before each name, 60 KB before thousands of names.
    parser = ParserCreate()
    parser.buffer_text = True
    # Entities can be declared in a DTD only.
    parser.StartDoctypeDeclHandler = builder.doctype
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(text, True)
    except ExpatError as error:
        why = ErrorString(error.code) or "can't be read"
        where = f"line {error.lineno}, column {error.offset + 1}"
        raise InvalidDocument(f"the document is not well-formed XML: {why}, {where}") from None
    except (ValueError, LookupError) as error:
        raise InvalidDocument(f"the document's encoding can't be read: {_cut(str(error))}") from None
    root = builder.close()
    if root.tag != "Response":
        hint = "; names are case-sensitive" if root.tag.lower() == "response" else ""
        raise InvalidDocument(f"the document's root is <{_cut(root.tag)}>; it must be <Response>{hint}")
    return root


def _children(parent: Node, allowed: tuple[str, ...], warnings: _Warnings) -> tuple[el.Element, ...]:
    """The elements that can be run; of what can't, and of text between them, a warning each."""
    found: list[el.Element] = []
    _stray(parent.text, parent.tag, warnings)
    for child in parent:
        if child.tag in allowed:
            element = _READERS[child.tag](child, warnings)
            if element is not None:
                found.append(element)
        else:
            _not_run(child.tag, parent.tag, allowed, warnings)
        _stray(child.tail, parent.tag, warnings)
    return tuple(found)


def _stray(text: str | None, where: str, warnings: _Warnings) -> None:
    if text and text.strip():
        warnings.append(f'{where}: the text "{_cut(text.strip())}" between the elements is ignored')


def _not_run(tag: str, where: str, allowed: tuple[str, ...], warnings: _Warnings) -> None:
    if tag in el.SKIPPED_ELEMENTS:
        warnings.append(f"{tag} is not run here: it is skipped, with all that is in it")
    elif tag in _READERS:
        instead = f" (only {', '.join(allowed)})" if allowed else ""
        warnings.append(f"{tag} can't stand in {where}{instead}: it is skipped")
    else:
        meant = _meant(tag, allowed, warnings)
        warnings.append(f"<{_cut(tag)}> is not an element that is known: it is skipped{meant}")


def _meant(name: str, known: Iterable[str], warnings: _Warnings) -> str:
    # To look for it costs a hundred times what all else does: not for a warning that nobody will see, nor for a name
    # so long that it can't be one of ours.
    if warnings.full or len(name) > MEANT_CHARACTERS:
        return ""
    by_lower = {k.lower(): k for k in known}
    near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.75)
    return f"; did you mean {by_lower[near[0]]}? Names are case-sensitive" if near else ""


def _attributes(node: Node, element: type, warnings: _Warnings) -> dict[str, Any]:
    """By the field's name. "A bad attribute value (decided): the default is used, and a warning"; a bad URL raises."""
    known = el.attributes_of(element)
    values: dict[str, Any] = {}
    for name, text in node.attrib.items():
        if name not in known:
            if name not in el.IGNORED_ATTRIBUTES.get(node.tag, ()):
                meant = _meant(name, known, warnings)
                warnings.append(f"{node.tag}: the attribute {_cut(name)} is unknown and ignored{meant}")
            continue
        field, read = known[name]
        given = f'{node.tag}: {name}="{_cut(text)}"'
        try:
            values[field.name] = value = read(text)
            if isinstance(value, str) and "://" in value and "#" in value:
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


def _cut(text: str, most: int = 80) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _text(node: Node) -> str:
    return "".join(node.itertext()).strip()


def _address(node: Node) -> str:
    text = _text(node)
    must_be = "an absolute http or https URL"
    try:
        if found := el.url(text):
            return found
    except el.NotAUrl as error:
        must_be = str(error)
    raise InvalidDocument(f'{node.tag}: its text "{_cut(text)}" must be {must_be}')


def _no_children(node: Node, warnings: _Warnings) -> None:
    for child in node:
        _not_run(child.tag, node.tag, (), warnings)


def _play(node: Node, warnings: _Warnings) -> el.Play:
    _no_children(node, warnings)
    return el.Play(_address(node), **_attributes(node, el.Play, warnings))


def _redirect(node: Node, warnings: _Warnings) -> el.Redirect:
    _no_children(node, warnings)
    return el.Redirect(_address(node), **_attributes(node, el.Redirect, warnings))


def _wait(node: Node, warnings: _Warnings) -> el.Wait:
    _children(node, (), warnings)
    return el.Wait(**_attributes(node, el.Wait, warnings))


def _hangup(node: Node, warnings: _Warnings) -> el.Hangup:
    _children(node, (), warnings)
    return el.Hangup(**_attributes(node, el.Hangup, warnings))


def _get_digits(node: Node, warnings: _Warnings) -> el.GetDigits:
    prompt = _children(node, ("Play", "Speak", "Wait"), warnings)
    return el.GetDigits(
        tuple(e for e in prompt if isinstance(e, el.Prompt)), **_attributes(node, el.GetDigits, warnings)
    )


def _pre_answer(node: Node, warnings: _Warnings) -> el.PreAnswer:
    found = _children(node, ("Speak", "Play", "Wait", "GetDigits", "Redirect"), warnings)
    _attributes(node, el.PreAnswer, warnings)
    return el.PreAnswer(tuple(e for e in found if isinstance(e, el.Prompt | el.GetDigits | el.Redirect)))


def _conference(node: Node, warnings: _Warnings) -> el.Conference:
    # "The text is the conference's name: trimmed, case-sensitive, may hold spaces and any Unicode, at most 200
    # characters; empty is an invalid document."
    _no_children(node, warnings)
    name = _text(node)
    if not name:
        raise InvalidDocument("Conference: it has no name; its text is the conference's name")
    if len(name) > MAX_NAME:
        raise InvalidDocument(f"Conference: its name has {len(name)} characters; at most {MAX_NAME} are allowed")
    return el.Conference(name, **_attributes(node, el.Conference, warnings))


def _speak(node: Node, warnings: _Warnings) -> el.Speak | None:
    attributes = _attributes(node, el.Speak, warnings)
    markup = canonical(node, warnings)
    if not markup:
        warnings.append("Speak: it has no text; it is skipped")
        return None
    return el.Speak(markup, **attributes)


_READERS: dict[str, Callable[[Node, _Warnings], el.Element | None]] = {
    "Play": _play,
    "Speak": _speak,
    "Wait": _wait,
    "Hangup": _hangup,
    "Redirect": _redirect,
    "GetDigits": _get_digits,
    "PreAnswer": _pre_answer,
    "Conference": _conference,
}

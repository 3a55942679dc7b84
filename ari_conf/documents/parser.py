"""XML parser: turns a document's text into elements. Pure: other modules fetch the text and run the elements.

Each warning and error names element, attribute, value and what is allowed. The effect of a mistake:

- a wrong value of an attribute, also a URL: the default is used instead, with a warning
- an unknown element, an element in a place where it is not allowed, or a Play without a URL: it is skipped, with a
  warning
- malformed XML, or a wrong conference name: the whole document is rejected (InvalidDocument)

Mistakes that SDKs are known to write (a bare `&`, `none` for false) are read as their author meant, with a warning.

The cost of any document is bounded: elements beyond the limits end the reading where they are, and warnings beyond
MAX_WARNINGS are only counted.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from typing import Any, NoReturn, Self
from xml.etree.ElementTree import Element as Node
from xml.etree.ElementTree import TreeBuilder
from xml.parsers.expat import ErrorString, ExpatError, ParserCreate

from ari_conf.common.safe_text import one_spelling
from ari_conf.core import elements as el
from ari_conf.errors import InvalidDocument
from ari_conf.http_client import retry_policy
from ari_conf.media.ssml import canonical

MAX_BYTES = 100 * 1024
MAX_DEPTH = 32
MAX_ELEMENTS = 2000
MAX_ATTRIBUTES = 64
"""Attributes that are read per element; Conference knows 27, two of which have no effect."""
MAX_WARNINGS = 50
MAX_WARNING = 500
"""Maximum characters of one warning, which is kept among the account's problems and appears in a log line."""
MAX_NAME = 200
MAX_SUGGESTION_CHARACTERS = 40
"""Longest name for which a similar known name is suggested; the longest known name has 22 characters."""
SHORT_BYTES = 4096
"""Size up to which a document is read in a few milliseconds, and is remembered; a longer one takes up to ten times as
long."""
MAX_CACHED_DOCUMENTS = 1024
"""Number of short documents that are remembered."""
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"} | {
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks -> encodings. UTF-32's come first, because they begin like those of UTF-16."""
WIDE = {b"<\0\0\0": "utf-32-le", b"\0\0\0<": "utf-32-be", b"<\0": "utf-16-le", b"\0<": "utf-16-be"}
"""First bytes of a document without a byte order mark -> encoding with several bytes per character."""
CODECS = re.compile(
    r"ascii|utf-8(-sig)?|(iso8859|koi8|mac|tis|hp)[-_].*|cp\d.*|shift_jis.*|euc_.*|iso2022_.*|gb.*|big5.*|hz"
)
"""Python's names of text encodings. Some of its other codecs are slow, and some are not text encodings."""
DECLARED = re.compile(rb"""<\?xml[^>]{0,100}?encoding\s{0,9}=\s{0,9}["']([^"'>]{0,100000})""")
DECLARATION = re.compile(r"<\?xml\s[^>]{0,200}\?>")
REFERENCE = r"(?:[A-Za-z]\w{0,31}|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});"
BARE = re.compile(rf"<!\[CDATA\[|<!--|<\?|&(?!{REFERENCE})")
"""Bare `&`, which begins no reference, or the beginning of a section in which `&` is allowed."""
CLOSED_BY = {"<![CDATA[": "]]>", "<!--": "-->", "<?": "?>"}


class _Warnings(list[str]):
    """List of the first MAX_WARNINGS warnings. Further ones are only counted, because a document may hold thousands of
    mistakes."""

    unlisted = 0
    skipped = 0
    """Number of the document's elements that are not run."""

    def skip(self, warning: str) -> None:
        """Add the warning for an element that is skipped."""
        self.skipped += 1
        self.append(warning)

    @property
    def is_full(self) -> bool:
        """True if the text of a further warning is not needed."""
        return len(self) >= MAX_WARNINGS

    def append(self, warning: str) -> None:
        if self.is_full:
            self.unlisted += 1
        else:
            super().append(_cut(warning, MAX_WARNING))

    def __iadd__(self, warnings: Iterable[str]) -> Self:  # type: ignore[override,misc]  # typeshed wants + to take as much
        for warning in warnings:
            self.append(warning)
        return self

    def to_tuple(self) -> tuple[str, ...]:
        return (*self, f"{self.unlisted} more warnings are not listed") if self.unlisted else tuple(self)


@dataclass(frozen=True, slots=True)
class Document:
    elements: tuple[el.Element, ...]
    warnings: tuple[str, ...] = ()
    skipped: int = 0
    """Number of the document's elements that are not run."""


def parse(text: bytes, charset: str = "") -> Document:
    """Return the document's elements in order. A document without elements is valid; it ends the call. `charset`: the
    one in the response's Content-Type. Raises InvalidDocument."""
    return _read_cached(text, charset) if len(text) <= SHORT_BYTES else _read(text, charset)


def _read(text: bytes, charset: str = "") -> Document:
    root, warnings = _parse_root(text, charset)
    found = _read_children(root, tuple(ELEMENT_PARSERS), warnings)
    return Document(found, warnings.to_tuple(), warnings.skipped)


# Usually all members of a conference run the same document, which is read and kept once for all of them.
_read_cached = lru_cache(MAX_CACHED_DOCUMENTS)(_read)


def parse_sounds(text: bytes, charset: str = "") -> tuple[tuple[el.Prompt, ...], tuple[str, ...]]:
    """Return a sound document's Play, Speak and Wait elements in order, and the warnings. Raises InvalidDocument."""
    return _read_sounds_cached(text, charset) if len(text) <= SHORT_BYTES else _read_sounds(text, charset)


def _read_sounds(text: bytes, charset: str = "") -> tuple[tuple[el.Prompt, ...], tuple[str, ...]]:
    root, warnings = _parse_root(text, charset)
    found = _read_children(root, ("Play", "Speak", "Wait"), warnings)
    return tuple(e for e in found if isinstance(e, el.Prompt)), warnings.to_tuple()


_read_sounds_cached = lru_cache(MAX_CACHED_DOCUMENTS)(_read_sounds)


class _BoundedTreeBuilder(TreeBuilder):
    """Tree builder that raises InvalidDocument at an element that is too deep or one too many, before more is read: 100
    KB can hold 25,000 elements."""

    def __init__(self, warnings: _Warnings) -> None:
        super().__init__()
        self._warnings = warnings
        self._elements = self._depth = 0
        self._prefix = ""

    def start(self, tag: str, attributes: dict[str, str], /) -> Node:
        if not self._elements and tag.endswith(":Response"):
            self._prefix = tag.removesuffix("Response")
        tag = tag.removeprefix(self._prefix)
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
        return super().end(tag.removeprefix(self._prefix))

    def doctype(self, *_: object) -> NoReturn:
        raise InvalidDocument("the document has a DTD or entities; neither is allowed")


def _parse_root(content: bytes, charset: str) -> tuple[Node, _Warnings]:
    # Spec: "not well-formed, root not Response, over 100 KB, DTD or entities"
    if len(content) > MAX_BYTES:
        raise InvalidDocument(f"the document has {len(content)} bytes; at most {MAX_BYTES} (100 KB) are allowed")
    text = _blank_declaration(_decode(content, charset))
    if not text.strip():
        raise InvalidDocument("the document is empty; it must be XML with the root <Response>")
    warnings = _Warnings()
    try:
        root = _build_tree(text, warnings)
    except ExpatError as error:
        # Most documents are well-formed, so a bare & is only searched for here.
        escaped, count = _escape_bare_ampersands(text)
        if not count:
            raise _not_well_formed(error) from None
        warnings = _Warnings()
        subject = "a bare & is" if count == 1 else f"{count} bare & are"
        warnings.append(f"the document is not well-formed XML: {subject} read as &amp;")
        try:
            root = _build_tree(escaped, warnings)
        except ExpatError as second_error:
            raise _not_well_formed(second_error) from None
    if root.tag != "Response":
        hint = "; names are case-sensitive" if root.tag.lower() == "response" else ""
        raise InvalidDocument(f"the document's root is <{_cut(root.tag)}>; it must be <Response>{hint}")
    return root, warnings


def _build_tree(text: str, warnings: _Warnings) -> Node:
    """Parse the text and return its root. Raises ExpatError or InvalidDocument."""
    builder = _BoundedTreeBuilder(warnings)
    # Without namespaces: with them, expat copies the whole URI, up to 60 KB, before each of thousands of names.
    parser = ParserCreate()
    parser.buffer_text = True
    # Only a DTD can declare entities.
    parser.StartDoctypeDeclHandler = builder.doctype
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(text, True)
    return builder.close()


def _not_well_formed(error: ExpatError) -> InvalidDocument:
    why = ErrorString(error.code) or "unknown error"
    return InvalidDocument(
        f"the document is not well-formed XML: {why}, line {error.lineno}, column {error.offset + 1}"
    )


def _decode(text: bytes, charset: str) -> str:
    """Decode a document by its byte order mark, its declaration, or the response's charset; otherwise as UTF-8. Raises
    InvalidDocument."""
    name = next((name for mark, name in MARKS.items() if text.startswith(mark)), "") or next(
        (name for first_bytes, name in WIDE.items() if text.startswith(first_bytes)), ""
    )
    if not name:
        declared = DECLARED.search(text[: text.find(b"<Response") + 1 or None])
        if declared_name := _not_wide(declared[1].decode("latin-1") if declared else ""):
            name = _find_codec(declared_name)
            if not name:
                raise InvalidDocument(f"the document's encoding {_cut(declared_name)!r} is not supported; use UTF-8")
        elif response_codec := _find_codec(_not_wide(charset)):
            # Web servers name the same charset for everything that they send; the text need not be in it.
            with suppress(UnicodeError):
                return text.decode(response_codec).removeprefix("\ufeff")
    try:
        return text.decode(name or "utf-8").removeprefix("\ufeff")
    except UnicodeError as error:
        raise InvalidDocument(_describe_decoding_error(text, name or "utf-8", error)) from None


def _not_wide(name: str) -> str:
    """Return the name, but "" for UTF-16 and UCS, because .NET declares UTF-16 for text that it then writes as
    UTF-8."""
    return "" if name.lower().startswith(("utf-16", "utf16", "ucs")) else name


def _find_codec(name: str) -> str:
    """Return Python's name of an encoding; "" if it is not a text encoding."""
    try:
        found = codecs.lookup(name[:100]).name if name else ""
    except (LookupError, ValueError):
        return ""
    return found if CODECS.fullmatch(found) else ""


def _describe_decoding_error(text: bytes, name: str, error: UnicodeError) -> str:
    if not isinstance(error, UnicodeDecodeError):
        return f"the document is not in the encoding {name}"
    before = text[: error.start]
    lines = before.split(b"\n")
    where = f"line {len(lines)}, column {len(lines[-1]) + 1}"
    hint = "the XML declaration can name another encoding"
    return f"the document is not in the encoding {name}: {error.reason}, {where}; {hint}"


def _blank_declaration(text: str) -> str:
    """Replace the declaration with spaces. XML allows nothing before it; an empty line or a byte order mark there is
    ignored."""
    found = DECLARATION.search(text)
    if found is None or re.search("[<:]Response", text[: found.start()]):
        return text
    blank = re.sub(r"[^\n]", " ", found[0])
    return text[: found.start()].replace("\ufeff", " ") + blank + text[found.end() :]


def _escape_bare_ampersands(text: str) -> tuple[str, int]:
    """Return the text with each bare `&` as `&amp;`, and their number. It takes one pass: the end of a section, if it
    is missing, is searched for only once."""
    parts, count, kept, at = list[str](), 0, 0, 0
    for found in BARE.finditer(text):
        if found.start() < at:
            continue
        if found[0] != "&":
            at = text.find(CLOSED_BY[found[0]], found.end())
            if at < 0:
                break
            continue
        parts += (text[kept : found.start()], "&amp;")
        kept, count = found.end(), count + 1
    return "".join((*parts, text[kept:])), count


def _read_children(parent: Node, allowed: tuple[str, ...], warnings: _Warnings) -> tuple[el.Element, ...]:
    """Return the elements that can be run, and add a warning for each of the others, and for each text between
    elements."""
    found: list[el.Element] = []
    _warn_stray_text(parent.text, parent.tag, warnings)
    for child in parent:
        if child.tag in allowed:
            element = ELEMENT_PARSERS[child.tag](child, warnings)
            if element is not None:
                found.append(element)
        else:
            _warn_not_run(child.tag, parent.tag, allowed, warnings)
        _warn_stray_text(child.tail, parent.tag, warnings)
    return tuple(found)


def _warn_stray_text(text: str | None, where: str, warnings: _Warnings) -> None:
    if text and text.strip():
        warnings.append(f'{where}: the text "{_cut(text.strip())}" between the elements is ignored')


def _warn_not_run(tag: str, where: str, allowed: tuple[str, ...], warnings: _Warnings) -> None:
    if tag in el.UNSUPPORTED_ELEMENTS:
        instead = f"; {el.INSTEAD[tag]}" if tag in el.INSTEAD else ""
        warnings.skip(f"{tag} is not supported: it is skipped, including its content{instead}")
    elif tag in ELEMENT_PARSERS or tag in DESTINATIONS:
        instead = f" (only {', '.join(allowed)})" if allowed else ""
        warnings.skip(f"{tag} is not allowed in {where}{instead}: it is skipped")
    else:
        suggestion = _suggest_name(tag, allowed, warnings)
        warnings.skip(f"<{_cut(tag)}> is not a known element: it is skipped{suggestion}")


def _suggest_name(name: str, known: Iterable[str], warnings: _Warnings) -> str:
    # The search costs a hundred times as much as all else. Skip it for a warning that is not shown, and for a name that
    # is too long to be known.
    if warnings.is_full or len(name) > MAX_SUGGESTION_CHARACTERS:
        return ""
    known_by_lower = {k.lower(): k for k in known}
    matches = get_close_matches(name.lower(), known_by_lower, n=1, cutoff=0.75)
    return f"; did you mean {known_by_lower[matches[0]]}? Names are case-sensitive" if matches else ""


def _read_attributes(node: Node, element: type, warnings: _Warnings) -> dict[str, Any]:
    """Return a node's attributes by field name. Spec: "A bad attribute value (decided): the default is used, and a
    warning"."""
    known = el.attribute_fields(element)
    values: dict[str, Any] = {}
    readings: list[str] = []
    for name, text in node.attrib.items():
        if name not in known:
            _warn_unknown_attribute(name, node.tag, known, warnings)
            continue
        field, kind = known[name]
        try:
            value = kind.read(text)
        except el.InvalidValue as error:
            # Digits to send are not quoted: they may be a PIN with a slip.
            shown = "..." if field.name == "send_digits" else _cut(el.without_login(text))
            attribute = f'{node.tag}: {name}="{shown}"'
            warnings.append(f"{attribute} is not allowed ({error}); {_format_value(field.default)} is used")
            continue
        if value is not el.NOT_GIVEN:
            values[field.name] = value
        if reading := _describe_reading(field.name, text, value):
            readings.append(f"{name}={reading}")
        if isinstance(value, str) and "://" in value:
            _warn_about_url(f"{node.tag}: {name}", text, value, warnings)
    if readings:
        warnings.append(f"{node.tag}: {', '.join(readings)}")
    return values


def _warn_unknown_attribute(name: str, tag: str, known: Iterable[str], warnings: _Warnings) -> None:
    if name in el.IGNORED_ATTRIBUTES.get(tag, ()) or name == "xmlns" or ":" in name:
        return
    warnings.append(f"{tag}: the attribute {_cut(name)} is unknown and ignored{_suggest_name(name, known, warnings)}")


def _describe_reading(field: str, text: str, value: Any) -> str:
    """Return the note about a value that is not spelled as it should be; "" if there is none."""
    bare = text.strip()
    if bare.lower() == "none" and field != "finish_on_key":
        return f'"{bare}" is read as {"not given" if value is el.NOT_GIVEN else _format_value(value)}'
    # The spelling of numbers, digits and URLs needs no note.
    differs = isinstance(value, bool) or (isinstance(value, str) and value.lower() == bare.lower())
    return f'"{bare}" is read as {_format_value(value)}' if differs and bare != _format_value(value) else ""


def _warn_about_url(where: str, text: str, url: str, warnings: _Warnings) -> None:
    if re.search(r"\s", text.strip()):
        warnings.append(f"{where}: the spaces and line breaks in it are percent-encoded")
    if el.without_login(url) != url:
        warnings.append(f'{where}: its user name and password are sent as "Authorization: Basic"')
    if "#" in url:
        # Spec: "A value out of range is clamped, an unknown key ignored, both with a warning". Only this place warns.
        warnings += (f"{where}: {warning}" for warning in retry_policy.parse(url)[2])


def _format_value(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default is None or default in ("", ()) else str(default)


def _cut(text: str, max_length: int = 80) -> str:
    return text if len(text) <= max_length else text[: max_length - 3] + "..."


def _text(node: Node) -> str:
    return "".join(node.itertext()).strip()


def _read_url(node: Node, warnings: _Warnings) -> str:
    """Return the URL in an element's text; "", with a warning, if the text is not a URL."""
    text = _text(node)
    must_be = el.url.allowed
    try:
        if found := el.url(text):
            _warn_about_url(node.tag, text, found, warnings)
            return found
    except el.InvalidValue as error:
        must_be = str(error)
    problem = f'{node.tag}: its text "{_cut(el.without_login(text))}" must be {must_be}'
    if node.tag == "Play":
        warnings.skip(f"{problem}: it is skipped")
    else:
        warnings.append(f"{problem}: the redirect fails")
    return ""


def _warn_about_children(node: Node, warnings: _Warnings) -> None:
    for child in node:
        _warn_not_run(child.tag, node.tag, (), warnings)


def _parse_play(node: Node, warnings: _Warnings) -> el.Play | None:
    _warn_about_children(node, warnings)
    attributes = _read_attributes(node, el.Play, warnings)
    address = _read_url(node, warnings)
    return el.Play(address, **attributes) if address else None


def _parse_redirect(node: Node, warnings: _Warnings) -> el.Redirect:
    _warn_about_children(node, warnings)
    return el.Redirect(_read_url(node, warnings), **_read_attributes(node, el.Redirect, warnings))


def _parse_wait(node: Node, warnings: _Warnings) -> el.Wait:
    _read_children(node, (), warnings)
    return el.Wait(**_read_attributes(node, el.Wait, warnings))


def _parse_hangup(node: Node, warnings: _Warnings) -> el.Hangup:
    _read_children(node, (), warnings)
    return el.Hangup(**_read_attributes(node, el.Hangup, warnings))


def _parse_get_digits(node: Node, warnings: _Warnings) -> el.GetDigits:
    prompt = _read_children(node, ("Play", "Speak", "Wait"), warnings)
    return el.GetDigits(
        tuple(e for e in prompt if isinstance(e, el.Prompt)), **_read_attributes(node, el.GetDigits, warnings)
    )


def _parse_get_input(node: Node, warnings: _Warnings) -> el.GetInput | None:
    attributes = _read_attributes(node, el.GetInput, warnings)
    kind = attributes.get("input_type", "dtmf")
    if kind == "speech":
        warnings.skip('GetInput: inputType="speech" is not supported, only "dtmf" is: it is skipped, with its content')
        return None
    if kind == "dtmf speech":
        warnings.append('GetInput: inputType="dtmf speech": speech is not supported; only digits are taken')
    if attributes.get("action") is None:
        warnings.append("GetInput: it has no action: the digits are not sent to any URL")
    prompt = _read_children(node, ("Play", "Speak", "Wait"), warnings)
    return el.GetInput(tuple(e for e in prompt if isinstance(e, el.Prompt)), **attributes)


def _parse_dtmf(node: Node, warnings: _Warnings) -> el.DTMF | None:
    _warn_about_children(node, warnings)
    attributes = _read_attributes(node, el.DTMF, warnings)
    text = "".join(_text(node).split())
    try:
        digits = el.digits_and_pauses(text)
    except el.InvalidValue as error:
        # The text is not quoted: it may be a PIN with a slip.
        warnings.skip(f"DTMF: its text must be {error}: it is skipped")
        return None
    if not digits:
        warnings.skip("DTMF: it has no digits; it is skipped")
        return None
    return el.DTMF(digits, **attributes)


def _parse_record(node: Node, warnings: _Warnings) -> el.Record:
    _read_children(node, (), warnings)
    return el.Record(**_read_attributes(node, el.Record, warnings))


def _parse_pre_answer(node: Node, warnings: _Warnings) -> el.PreAnswer:
    allowed = "Speak", "Play", "Wait", "GetDigits", "GetInput", "DTMF", "Redirect"
    found = _read_children(node, allowed, warnings)
    _read_attributes(node, el.PreAnswer, warnings)
    kinds = el.Prompt | el.GetDigits | el.GetInput | el.DTMF | el.Redirect
    return el.PreAnswer(tuple(e for e in found if isinstance(e, kinds)))


def _parse_conference(node: Node, warnings: _Warnings) -> el.Conference:
    # Spec: "The text is the conference's name: trimmed, case-sensitive, may hold spaces and any Unicode, at most 200
    # characters; empty is an invalid document. Two spellings that a reader cannot tell apart are one name."
    _warn_about_children(node, warnings)
    name = one_spelling(_text(node))
    if not name:
        raise InvalidDocument("Conference: it has no name; its text is the conference's name")
    if len(name) > MAX_NAME:
        raise InvalidDocument(f"Conference: its name has {len(name)} characters; at most {MAX_NAME} are allowed")
    return el.Conference(name, **_read_attributes(node, el.Conference, warnings))


def _parse_dial(node: Node, warnings: _Warnings) -> el.Dial | None:
    attributes = _read_attributes(node, el.Dial, warnings)
    if attributes.get("confirm_sound") is not None and attributes.get("confirm_key") is None:
        warnings.append("Dial: confirmSound is ignored: without a confirmKey there is nothing to confirm")
    numbers: dict[str, el.Number] = {}
    _warn_stray_text(node.text, node.tag, warnings)
    for child in node:
        if child.tag not in DESTINATIONS:
            _warn_not_run(child.tag, node.tag, DESTINATIONS, warnings)
        elif (number := _parse_number(child, warnings)) is not None:
            numbers.setdefault(number.to, number)
        _warn_stray_text(child.tail, node.tag, warnings)
    if not numbers:
        warnings.skip("Dial: it has no Number or User; it is skipped")
        return None
    if len(numbers) > el.MAX_NUMBERS:
        warnings.append(f"Dial: only the first {el.MAX_NUMBERS} of its {len(numbers)} destinations are called")
    return el.Dial(tuple(numbers.values())[: el.MAX_NUMBERS], **attributes)


def _parse_number(node: Node, warnings: _Warnings) -> el.Number | None:
    _warn_about_children(node, warnings)
    attributes = _read_attributes(node, el.Number, warnings)
    if any(name.startswith("sipAuth") for name in node.attrib):
        warnings.append(f"{node.tag}: sipAuthUsername and sipAuthPassword have no effect: a trunk has its credentials")
    to = _text(node)
    wanted = "a SIP URI" if node.tag == "User" else "a number or a SIP URI"
    is_uri = to.lower().startswith(("sip:", "sips:"))
    if not 0 < len(to) <= MAX_NAME or not to.isprintable() or (node.tag == "User" and not is_uri):
        warnings.skip(f'{node.tag}: its text "{_cut(to)}" must be {wanted}: it is skipped')
        return None
    return el.Number(to, **attributes)


def _parse_speak(node: Node, warnings: _Warnings) -> el.Speak | None:
    attributes = _read_attributes(node, el.Speak, warnings)
    markup = canonical(node, warnings)
    if not markup:
        warnings.skip("Speak: it has no text; it is skipped")
        return None
    return el.Speak(markup, **attributes)


ELEMENT_PARSERS: dict[str, Callable[[Node, _Warnings], el.Element | None]] = {
    "Play": _parse_play,
    "Speak": _parse_speak,
    "Wait": _parse_wait,
    "Hangup": _parse_hangup,
    "Redirect": _parse_redirect,
    "GetDigits": _parse_get_digits,
    "GetInput": _parse_get_input,
    "DTMF": _parse_dtmf,
    "Record": _parse_record,
    "PreAnswer": _parse_pre_answer,
    "Conference": _parse_conference,
    "Dial": _parse_dial,
}
DESTINATIONS = "Number", "User"
"""Elements in a Dial."""

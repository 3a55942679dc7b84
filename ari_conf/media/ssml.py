"""What stands inside Speak: brought to one spelling when the document is read, to pieces of text and silence when it
is spoken. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from xml.etree.ElementTree import Element as Node
from xml.etree.ElementTree import ParseError
from xml.sax.saxutils import escape, quoteattr

from defusedxml.ElementTree import fromstring

from ari_conf.errors import SoundFailed

MAX_SPOKEN = 3000
MAX_PAUSE_MS = 10_000
"""The longest break, as Polly has it."""
MIN_RATE, MAX_RATE = 0.5, 2.0

ELEMENTS: dict[str, tuple[str, ...]] = {
    "break": ("strength", "time"),
    "emphasis": ("level",),
    "lang": ("xml:lang",),
    "p": (),
    "phoneme": ("alphabet", "ph"),
    "prosody": ("volume", "rate", "pitch"),
    "s": (),
    "say-as": ("interpret-as", "format"),
    "sub": ("alias",),
    "w": ("role",),
}
"""The elements, with the attributes that are kept."""

_XML = "{http://www.w3.org/XML/1998/namespace}"
_STRENGTHS = {"none": 0, "x-weak": 100, "weak": 200, "medium": 400, "strong": 700, "x-strong": 1000}
_RATES = {"x-slow": 0.5, "slow": 0.75, "medium": 1.0, "default": 1.0, "fast": 1.25, "x-fast": 1.5}
_AFTER_MS = {"p": 600, "s": 300}
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    rate: float = 1.0
    """2.0 is twice as fast."""


@dataclass(frozen=True, slots=True)
class Pause:
    ms: int


def canonical(node: Node, warnings: list[str]) -> str:
    """The inside of a Speak element in one spelling; "" if nothing of it can be heard.

    Rendered speech is cached by it. White space is one space, the attributes that are kept stand in a fixed order,
    an element that is not speech leaves its text, and the text ends after 3000 characters.
    """
    spoken = len(re.sub(r"\s+", " ", "".join(node.itertext())).strip())
    if spoken > MAX_SPOKEN:
        # Cut, not refused: a caller who hears most of a text is better off than one whose call is hung up.
        warnings.append(f"Speak: its text has {spoken} characters; the first {MAX_SPOKEN} are spoken")
    writer = _Writer(warnings)
    writer.content(node)
    return "".join(writer.parts).strip() if writer.audible else ""


def plain(text: str) -> str:
    """Plain text as markup."""
    return escape(re.sub(r"\s+", " ", text).strip()[:MAX_SPOKEN])


class _Writer:
    def __init__(self, warnings: list[str]) -> None:
        self.parts: list[str] = []
        self.audible = False
        self._left = MAX_SPOKEN
        self._warnings = warnings

    def content(self, node: Node) -> None:
        self._text(node.text)
        for child in node:
            self._child(child)
            self._text(child.tail)

    def _child(self, node: Node) -> None:
        if node.tag not in ELEMENTS:
            if node.tag != "speak":
                self._warnings.append(f"Speak: <{node.tag[:80]}> is not an element of speech; only its text is spoken")
            self.content(node)
            return
        kept, given = ELEMENTS[node.tag], {name.replace(_XML, "xml:"): value for name, value in node.attrib.items()}
        self._warnings += [
            f"Speak: the attribute {name[:80]} of {node.tag} is unknown and ignored"
            for name in given
            if name not in kept
        ]
        self.audible |= node.tag in ("break", "sub")
        tag = node.tag + "".join(f" {name}={quoteattr(given[name])}" for name in kept if name in given)
        mark = len(self.parts)
        self.content(node)
        inner = self.parts[mark:]
        self.parts[mark:] = [f"<{tag}>", *inner, f"</{node.tag}>"] if inner else [f"<{tag}/>"]

    def _text(self, text: str | None) -> None:
        text = re.sub(r"\s+", " ", text or "")
        if len(text) > self._left:
            # At the end of a word, if there is one.
            text = text[: self._left].rpartition(" ")[0] or text[: self._left]
            self._left = 0
        else:
            self._left -= len(text)
        if text:
            self.parts.append(escape(text))
            self.audible |= not text.isspace()


def segments(markup: str) -> tuple[Text | Pause, ...]:
    """What is to be said, and the silences between, in order. Raises SoundFailed if it is not well-formed.

    Of prosody only the rate is obeyed; emphasis, lang, phoneme and w leave their text as it is: none of the engines
    can do more.
    """
    try:
        root = fromstring(f"<speak>{markup}</speak>", forbid_dtd=True)
    except (ParseError, ValueError) as error:
        raise SoundFailed(f"Speak: its text is not well-formed XML: {error}") from None
    found: list[Text | Pause] = []
    try:
        _walk(root, 1.0, found)
    except RecursionError:
        raise SoundFailed("Speak: its elements are nested too deep") from None
    tidy = [Text(" ".join(s.text.split()), s.rate) if isinstance(s, Text) else s for s in found]
    # A lone full stop between two breaks is nothing that an engine could say.
    return tuple(s for s in tidy if isinstance(s, Pause) or any(c.isalnum() for c in s.text))


def _walk(node: Node, rate: float, found: list[Text | Pause]) -> None:
    if node.tag == "break":
        _add(found, Pause(_pause(node)))
    elif node.tag == "sub":
        _add(found, Text(node.get("alias") or "".join(node.itertext()), rate))
    elif node.tag == "say-as":
        _add(found, Text(_said(node), rate))
    else:
        if node.tag == "prosody":
            rate = min(max(rate * _rate(node.get("rate", "medium")), MIN_RATE), MAX_RATE)
        _add(found, Text(node.text or "", rate))
        for child in node:
            _walk(child, rate, found)
            _add(found, Text(child.tail or "", rate))
        if node.tag in _AFTER_MS:
            _add(found, Pause(_AFTER_MS[node.tag]))


def _add(found: list[Text | Pause], new: Text | Pause) -> None:
    """One sentence stays one piece, so that it is spoken in one breath."""
    last = found[-1] if found else None
    if isinstance(new, Text) and not new.text.strip() and not isinstance(last, Text):
        return
    if isinstance(new, Pause) and isinstance(last, Pause):
        found[-1] = Pause(min(last.ms + new.ms, MAX_PAUSE_MS))
    elif isinstance(new, Text) and isinstance(last, Text) and (last.rate == new.rate or not new.text.strip()):
        found[-1] = Text(last.text + new.text, last.rate)
    elif not (isinstance(new, Pause) and new.ms == 0):
        found.append(new)


def _pause(node: Node) -> int:
    time = re.fullmatch(r"\+?(\d{1,6}(?:\.\d{1,6})?)(ms|s)", node.get("time", "").strip())
    if time is None:
        return _STRENGTHS.get(node.get("strength", "medium"), _STRENGTHS["medium"])
    return min(round(float(time[1]) * (1000 if time[2] == "s" else 1)), MAX_PAUSE_MS)


def _rate(text: str) -> float:
    percent = re.fullmatch(r"(\d{1,4}(?:\.\d{1,4})?)%", text.strip())
    return float(percent[1]) / 100 if percent else _RATES.get(text.strip(), 1.0)


def _said(node: Node) -> str:
    text = " ".join("".join(node.itertext()).split())
    speak = _SAY_AS.get(node.get("interpret-as", ""))
    return speak(text, node.get("format", "")) if speak else text


def _digits(text: str, _: str) -> str:
    groups = re.findall(r"[^-. ()]+", text)
    return ", ".join(" ".join(_DIGITS[int(c)] if c in "0123456789" else c for c in group) for group in groups)


def _characters(text: str, _: str) -> str:
    # Capitals by themselves are said as letters; a small a would be the article.
    return ", ".join(_DIGITS[int(c)] if c in "0123456789" else c.upper() for c in text if not c.isspace())


def _ordinal(text: str, _: str) -> str:
    if not (text.isascii() and text.isdigit()):
        return text
    ending = "th" if text[-2:] in ("11", "12", "13") else {"1": "st", "2": "nd", "3": "rd"}.get(text[-1], "th")
    return text + ending


def _date(text: str, form: str) -> str:
    """Three numbers in the order of the format; what is not such a date is said as it stands."""
    numbers = re.fullmatch(r"(\d{1,4})[-/. ](\d{1,2})[-/. ](\d{1,4})", text)
    order = form if sorted(form) == ["d", "m", "y"] else "ymd" if numbers and len(numbers[1]) == 4 else "mdy"
    if numbers is None:
        return text
    part = dict(zip(order, (int(n) for n in numbers.groups()), strict=True))
    try:
        day = date(part["y"] + (2000 if part["y"] < 100 else 0), part["m"], part["d"])
    except ValueError:
        return text
    return f"{_MONTHS[day.month - 1]} {day.day}, {day.year}"


_SAY_AS: dict[str, Callable[[str, str], str]] = {
    "digits": _digits,
    "telephone": _digits,
    "characters": _characters,
    "spell-out": _characters,
    "ordinal": _ordinal,
    "date": _date,
    "expletive": lambda _text, _format: "",
}

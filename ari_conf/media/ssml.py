"""SSML inside Speak: reduced to a canonical form when the document is read, and split into texts and pauses when it is
spoken. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from xml.etree.ElementTree import Element as Node
from xml.etree.ElementTree import ParseError
from xml.sax.saxutils import escape, quoteattr

from defusedxml.ElementTree import fromstring

from ari_conf.errors import SoundError
from ari_conf.media.alphabets import can_be_said

MAX_SPOKEN = 3000
"""Maximum number of spoken characters per Speak. The alias of `sub`, and the text that `say-as` results in, count as
they are spoken."""
MAX_PAUSE_MS = 10_000
"""Longest single pause, as in Polly."""
MAX_PAUSES_MS = 60_000
"""Maximum total of all pauses of one Speak."""
MAX_PIECES = 100
"""Maximum number of texts and pauses per Speak, because each text starts an engine. The texts beyond it become one
text."""
MAX_PART, NUMBER_COUNTS = 300, 10
"""Limits for one part of a text. An engine gets some sentences at a time, of at most MAX_PART characters in all, so
that other accounts have their turn soon, and no engine's memory grows with the text. A digit or a sign, except those in
LIGHT, counts as NUMBER_COUNTS characters, about as many as are spoken for it."""
MAX_SIGNS, MAX_WORD = 3, 100
"""Longest run of signs, and longest word, in characters. flite writes beyond its memory after some hundred signs in a
row, and a longer run makes no engine say more."""
LIGHT = frozenset(" .,;:!?'\"()-")
"""Signs that count as one character."""
ENDS = r"(?<=[.!?;:]) ", r"(?<=,) ", " "
"""Patterns for the end of a sentence, of a clause, and of a word."""
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
"""Supported SSML elements, with the attributes that are kept."""

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
    """Speaking rate: 2.0 is twice as fast."""


@dataclass(frozen=True, slots=True)
class Pause:
    ms: int


def canonical(node: Node, warnings: list[str]) -> str:
    """Return the content of a Speak element in canonical form; "" if nothing of it can be heard.

    Rendered speech is cached under it. White space is one space, the kept attributes have a fixed order, an element
    that is not SSML is replaced with its text, and the text ends after 3000 characters. Mistakes are added to
    `warnings`.
    """
    writer = _Writer(warnings)
    writer.content(node)
    found: list[Text | Pause] = []
    _walk(node, 1.0, found)
    warnings += _limit_pieces(found, writer.given if writer.cut else 0)[1]
    return "".join(writer.parts).strip() if writer.audible else ""


def plain(text: str) -> str:
    """Return plain text as markup, cut to MAX_SPOKEN characters."""
    return escape(re.sub(r"\s+", " ", text).strip()[:MAX_SPOKEN])


class _Writer:
    def __init__(self, warnings: list[str]) -> None:
        self.parts: list[str] = []
        self.audible = False
        self.given = 0
        """Characters of text that were read; only the first MAX_SPOKEN are kept."""
        self.cut = False
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
                what = f"<{node.tag[:80]}> is not a supported SSML element"
                self._warnings.append(f"Speak: {what}; only its text is spoken")
            self.content(node)
            return
        kept, given = ELEMENTS[node.tag], {name.replace(_XML, "xml:"): value for name, value in node.attrib.items()}
        self._warnings += [
            f"Speak: the attribute {name[:80]} of {node.tag} is unknown and ignored"
            for name in given
            if name not in kept
        ]
        self.audible |= node.tag in ("break", "sub")
        if "alias" in given and node.tag == "sub":
            given["alias"] = self._fitting(given["alias"])
        tag = node.tag + "".join(f" {name}={quoteattr(given[name])}" for name in kept if name in given)
        mark = len(self.parts)
        self.content(node)
        inner = self.parts[mark:]
        self.parts[mark:] = [f"<{tag}>", *inner, f"</{node.tag}>"] if inner else [f"<{tag}/>"]

    def _text(self, text: str | None) -> None:
        text = self._fitting(text or "")
        if text:
            self.parts.append(escape(text))
            self.audible |= not text.isspace()

    def _fitting(self, text: str) -> str:
        text = re.sub(r"\s+", " ", text)
        text = text if self.given else text.lstrip()
        self.given += len(text)
        kept = _cut(text, self._left)
        self._left = self._left - len(kept) if kept == text else 0
        self.cut |= not text[len(kept) :].isspace() and kept != text
        return kept


def _cut(text: str, most: int) -> str:
    """Return the first `most` characters, cut at the end of a word if there is one."""
    kept = text[:most]
    return kept if len(text) <= most or text[most] == " " else kept.rpartition(" ")[0] or kept


def segments(markup: str) -> tuple[Text | Pause, ...]:
    """Return the texts and pauses of a Speak in order, within the limits above. Raises SoundError if the markup is not
    well-formed or is nested too deep.

    Of prosody, only the rate is applied. Emphasis, lang, phoneme and w leave their text unchanged, because none of the
    engines can do more.
    """
    try:
        root = fromstring(f"<speak>{markup}</speak>", forbid_dtd=True)
    except (ParseError, ValueError) as error:
        raise SoundError(f"Speak: its text is not well-formed XML: {error}") from None
    found: list[Text | Pause] = []
    try:
        _walk(root, 1.0, found)
    except RecursionError:
        raise SoundError("Speak: its elements are nested too deep") from None
    return tuple(_limit_pieces(found)[0])


def _limit_pieces(found: Iterable[Text | Pause], given: int = 0) -> tuple[list[Text | Pause], list[str]]:
    """Return the pieces that are spoken, and warnings about the rest. Texts are cut, not refused: a caller who hears
    most of a text is better off than a caller whose call is hung up. `given`: length of the whole text if `canonical`
    has cut it, otherwise 0."""
    tidy = [Text(" ".join(s.text.split()) + " ", s.rate) if isinstance(s, Text) else s for s in _merge(found)]
    # No engine can say a lone period between two breaks.
    pieces = _merge(s for s in tidy if isinstance(s, Pause) or can_be_said(s.text))
    characters = sum(len(s.text) for s in pieces if isinstance(s, Text)) - 1
    pauses_ms = sum(_ms(s) for s in pieces)
    warnings = []
    if characters > MAX_SPOKEN or given:
        count = characters if characters > MAX_SPOKEN else given
        reason = f"its text has {count} characters; the first {MAX_SPOKEN} are spoken"
        warnings.append(f"Speak: {reason}")
        pieces = _keep_first_texts(pieces)
    if pauses_ms > MAX_PAUSES_MS:
        reason = f"its pauses take {pauses_ms / 1000:g} s; those after the first {MAX_PAUSES_MS // 1000} s are left out"
        warnings.append(f"Speak: {reason}")
        pieces = _keep_first_pauses(pieces)
    if len(pieces) > MAX_PIECES:
        reason = f"it has {len(pieces)} texts and pauses; from the {MAX_PIECES}th on it is spoken without a pause"
        warnings.append(f"Speak: {reason}")
        rest = [s for s in pieces[MAX_PIECES - 1 :] if isinstance(s, Text)]
        pieces = [*pieces[: MAX_PIECES - 1], *(Text("".join(s.text for s in rest), s.rate) for s in rest[:1])]
    return [Text(s.text.strip(), s.rate) if isinstance(s, Text) else s for s in pieces], warnings


def _ms(piece: Text | Pause) -> int:
    return piece.ms if isinstance(piece, Pause) else 0


def _keep_first_texts(pieces: list[Text | Pause]) -> list[Text | Pause]:
    found, left = list[Text | Pause](), MAX_SPOKEN
    for piece in pieces:
        if isinstance(piece, Text):
            if len(piece.text) > left:
                return [*found, Text(_cut(piece.text, left), piece.rate)] if left else found
            left -= len(piece.text)
        found.append(piece)
    return found


def _keep_first_pauses(pieces: list[Text | Pause]) -> list[Text | Pause]:
    found, left = list[Text | Pause](), MAX_PAUSES_MS
    for piece in pieces:
        kept = Pause(min(piece.ms, left)) if isinstance(piece, Pause) else piece
        left -= _ms(kept)
        found.append(kept)
    return _merge(found)


def parts(text: str) -> list[str]:
    """Split a text into the parts that an engine gets one after another: whole sentences if they are short enough;
    otherwise a part ends at a comma, or at the end of a word."""
    found, part = list[str](), ""
    for unit in _units(shorten_runs(text), ENDS):
        longer = f"{part} {unit}".strip()
        if part and _weighted_length(longer) > MAX_PART:
            found.append(part)
            longer = unit
        part = longer
    return [*found, part]


def shorten_runs(text: str) -> str:
    """Return the text with long runs of signs cut, and with long words split."""
    sign = r"(?:[^\w\s]|_)"
    text = re.sub(f"({sign}{{{MAX_SIGNS}}}){sign}+", r"\1", text)
    return re.sub(f"(\\S{{{MAX_WORD}}})(?=\\S)", r"\1 ", text)


def _units(text: str, ends: tuple[str, ...]) -> list[str]:
    if not ends or _weighted_length(text) <= MAX_PART:
        return [text]
    return [unit for longer in re.split(ends[0], text) for unit in _units(longer, ends[1:])]


def _weighted_length(text: str) -> int:
    return sum(1 if c.isalpha() or c in LIGHT else NUMBER_COUNTS for c in text)


def _walk(node: Node, rate: float, found: list[Text | Pause]) -> None:
    if node.tag == "break":
        found.append(Pause(_pause_ms(node)))
    elif node.tag == "sub":
        found.append(Text(node.get("alias") or "".join(node.itertext()), rate))
    elif node.tag == "say-as":
        found.append(Text(_say_as_text(node), rate))
    else:
        if node.tag == "prosody":
            rate = min(max(rate * _rate(node.get("rate", "medium")), MIN_RATE), MAX_RATE)
        found.append(Text(node.text or "", rate))
        for child in node:
            _walk(child, rate, found)
            found.append(Text(child.tail or "", rate))
        if node.tag in _AFTER_MS:
            found.append(Pause(_AFTER_MS[node.tag]))


def _merge(pieces: Iterable[Text | Pause]) -> list[Text | Pause]:
    """Merge adjacent texts of one rate, and adjacent pauses, so that each sentence is one piece and is spoken without a
    gap."""
    found, texts, rate = list[Text | Pause](), list[str](), 1.0

    def close() -> None:
        if texts:
            found.append(Text("".join(texts), rate))
            texts.clear()

    for piece in pieces:
        if isinstance(piece, Text):
            blank = not piece.text.strip()
            if not blank and piece.rate != rate:
                close()
                rate = piece.rate
            if texts or not blank:
                texts.append(piece.text)
        elif piece.ms:
            close()
            before = _ms(found.pop()) if found and isinstance(found[-1], Pause) else 0
            found.append(Pause(min(before + piece.ms, MAX_PAUSE_MS)))
    close()
    return found


def _pause_ms(node: Node) -> int:
    time = re.fullmatch(r"\+?(\d{1,6}(?:\.\d{1,6})?)(ms|s)", node.get("time", "").strip())
    if time is None:
        return _STRENGTHS.get(node.get("strength", "medium"), _STRENGTHS["medium"])
    return min(round(float(time[1]) * (1000 if time[2] == "s" else 1)), MAX_PAUSE_MS)


def _rate(text: str) -> float:
    percent = re.fullmatch(r"(\d{1,4}(?:\.\d{1,4})?)%", text.strip())
    return float(percent[1]) / 100 if percent else _RATES.get(text.strip(), 1.0)


def _say_as_text(node: Node) -> str:
    text = " ".join("".join(node.itertext()).split())
    speak = _SAY_AS.get(node.get("interpret-as", ""))
    return speak(text, node.get("format", "")) if speak else text


def _digits(text: str, _: str) -> str:
    groups = re.findall(r"[^-. ()]+", text)
    return ", ".join(" ".join(_DIGITS[int(c)] if c in "0123456789" else c for c in group) for group in groups)


def _characters(text: str, _: str) -> str:
    # Engines say a lone capital as a letter; a lower-case "a" would be the article.
    return ", ".join(_DIGITS[int(c)] if c in "0123456789" else c.upper() for c in text if not c.isspace())


def _ordinal(text: str, _: str) -> str:
    if not (text.isascii() and text.isdigit()):
        return text
    ending = "th" if text[-2:] in ("11", "12", "13") else {"1": "st", "2": "nd", "3": "rd"}.get(text[-1], "th")
    return text + ending


def _date(text: str, form: str) -> str:
    """Return a date of three numbers in words, reading it in the order of `form`. Other text is returned unchanged."""
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

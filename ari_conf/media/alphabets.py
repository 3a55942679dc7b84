"""Letters and signs: the language whose voice a text needs, and the ASCII form of a text for engines that know only
ASCII. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Set

LATIN = (
    "A-Za-zªºÀ-ÖØ-öø-\u02ff\u1d00-\u1dbf\u1e00-\u1eff\u2071\u207f\u2090-\u209c\u2c60-\u2c7f\ua720-\ua7ff\uff21-\uff5a"
)
"""Latin letters, including those of phonetic alphabets, as the content of a regular expression's brackets."""
FOREIGN = re.compile(rf"[^\W\d_{LATIN}]")
"""Letter of any other alphabet."""
KANA = re.compile("[\u3040-\u30ff\u31f0-\u31ff]")
TAG = re.compile(r"<[^>]*>")

LANGUAGES: dict[str, tuple[str, ...]] = {
    "\u0370-\u03ff\u1f00-\u1fff": ("el", "grc"),
    "\u0400-\u052f": ("ru", "uk", "bg", "sr", "mk", "be", "kk", "ky", "tt", "ba", "cv", "mn", "tg"),
    "\u0530-\u058f": ("hy", "hyw"),
    "\u0590-\u05ff": ("he", "yi"),
    "\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufeff": ("ar", "fa", "ur", "sd", "ug", "ps"),
    "\u0900-\u097f": ("hi", "mr", "ne", "kok", "sa"),
    "\u0980-\u09ff": ("bn", "as", "bpy"),
    "\u0a00-\u0a7f": ("pa",),
    "\u0a80-\u0aff": ("gu",),
    "\u0b00-\u0b7f": ("or",),
    "\u0b80-\u0bff": ("ta",),
    "\u0c00-\u0c7f": ("te",),
    "\u0c80-\u0cff": ("kn",),
    "\u0d00-\u0d7f": ("ml",),
    "\u0d80-\u0dff": ("si",),
    "\u0e00-\u0e7f": ("th",),
    "\u1000-\u109f": ("my",),
    "\u10a0-\u10ff\u1c90-\u1cbf": ("ka",),
    "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af": ("ko",),
    "\u1200-\u139f": ("am", "ti"),
    "\u1780-\u17ff": ("km",),
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f": ("ja",),
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff": ("cmn", "yue", "ja", "ko"),
}
"""Letters of an alphabet -> languages that are written in it; the first one is used if the document names none of
them."""
_ALPHABETS = [(re.compile(f"[{letters}]"), languages) for letters, languages in LANGUAGES.items()]
ALIASES = {"zh": "cmn", "arb": "ar", "no": "nb", "iw": "he", "in": "id"}
"""Plivo's and older language codes -> the codes used here."""


def language_of(text: str, language: str) -> str:
    """Return the language, as a lower-case code without region, that has a voice for this text's letters: the stated
    language, unless the text is written in another alphabet. "": no known language has these letters."""
    named = base(language)
    foreign = FOREIGN.search(text)
    if foreign is None:
        return named
    if named != "cmn" and KANA.search(text):
        return "ja"
    languages = next((languages for letters, languages in _ALPHABETS if letters.match(foreign[0])), ("",))
    return named if named in languages else languages[0]


def base(language: str) -> str:
    code = language.partition("-")[0].lower()
    return ALIASES.get(code, code)


def best_of(language: str, wanted: str, there: Set[str]) -> str | None:
    """Return the voice for `wanted` among the voices `there`: that of the region in `language`, if there is one. None:
    no such voice exists."""
    region = language.lower()
    if base(language) == wanted and region in there:
        return region
    return wanted if wanted in there else None


def without_tags(markup: str) -> str:
    return TAG.sub(" ", markup)


def can_be_said(text: str) -> bool:
    """Return True if the text contains something that is spoken: letters, digits, or signs that have a name."""
    return any(c.isalnum() or c in "%&@#" or unicodedata.category(c) in ("Sc", "Sm") for c in text)


MONEY = {"€": ("euro", "euros"), "£": ("pound", "pounds"), "¥": ("yen", "yen"), "₹": ("rupee", "rupees")} | {
    "₽": ("rouble", "roubles"),
    "₩": ("won", "won"),
    "₺": ("lira", "lira"),
    "₴": ("hryvnia", "hryvnias"),
    "₪": ("shekel", "shekels"),
    "₱": ("peso", "pesos"),
    "₫": ("dong", "dong"),
    "₦": ("naira", "naira"),
    "฿": ("baht", "baht"),
    "₿": ("bitcoin", "bitcoins"),
    "¢": ("cent", "cents"),
}
_AMOUNT = r"(\d(?:[\d.,]{0,20}\d)?)"
_SIGN = f"([{''.join(MONEY)}])"
_BEFORE = re.compile(rf"{_SIGN}\s?{_AMOUNT}")
_AFTER = re.compile(rf"{_AMOUNT}\s?{_SIGN}")
SIGNS = {
    "“": '"',
    "”": '"',
    "„": '"',
    "«": '"',
    "»": '"',
    "‘": "'",
    "’": "'",
    "–": ", ",
    "—": ", ",
    "•": ", ",
    "·": " ",
    "×": " times ",
    "÷": " divided by ",
    "±": " plus or minus ",
    "≈": " about ",
    "≠": " is not ",
    "√": " root of ",
    "≤": " at most ",
    "≥": " at least ",
    "∞": " infinity ",
    "→": " to ",
    "←": " from ",
    "⇒": " to ",
    "−": " minus ",
    "°": " degrees ",
    "§": " section ",
    "¶": " paragraph ",
    "©": " copyright ",
    "®": " registered ",
    "™": " T M ",
    "№": " number ",
    "µ": " micro",
    "μ": " micro",
    "‰": " per thousand",
    "⁄": "/",
    "²": " squared",
    "³": " cubed",
    "½": " 1/2",
    "¼": " 1/4",
    "¾": " 3/4",
    "⅓": " 1/3",
    "⅔": " 2/3",
    "…": "... ",
    "℃": " degrees C ",
    "℉": " degrees F ",
    "ß": "ss",
    "ẞ": "SS",
    "æ": "ae",
    "Æ": "Ae",
    "œ": "oe",
    "Œ": "Oe",
    "ø": "o",
    "Ø": "O",
    "ł": "l",
    "Ł": "L",
    "đ": "d",
    "Đ": "D",
    "ð": "th",
    "Ð": "Th",
    "þ": "th",
    "Þ": "Th",
    "ħ": "h",
    "Ħ": "H",
    "ı": "i",
    "ŋ": "ng",
    "ĸ": "k",
}
"""Replacements, as they are spoken, for letters and signs that ASCII doesn't have."""
_SIGNS = str.maketrans(SIGNS)


def in_ascii(text: str) -> str:
    """Return the text in ASCII, for engines that know nothing else: é becomes e, “ becomes ", and €5 becomes 5 euros.
    Characters without a replacement or a name are left out."""
    if not text.isascii():
        text = _BEFORE.sub(lambda found: _amount(found[2], found[1]), text)
        text = _AFTER.sub(lambda found: _amount(found[1], found[2]), text)
        text = unicodedata.normalize("NFKD", text.translate(_SIGNS)).translate(_SIGNS)
        text = "".join(c if c.isascii() else _name(c) for c in text)
    return text


def _amount(number: str, sign: str) -> str:
    one, more = MONEY[sign]
    return f"{number} {one if number == '1' else more} "


def _name(sign: str) -> str:
    if sign in MONEY:
        return f" {MONEY[sign][0]} "
    if unicodedata.category(sign) in ("Sc", "Sm"):
        return f" {unicodedata.name(sign, '').lower().removesuffix(' sign')} "
    return ""

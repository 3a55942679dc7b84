"""Documents that consist of a single expensive construct: 100 KB of it, or as many elements as are allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, islice, permutations, product, repeat

ROOM = 102_300
ELEMENTS = 1990
PLAY = "<Play>http://a.b/c</Play>"
PAGE = "u" * 60_000


def documents() -> dict[str, bytes]:
    inside = {**attributes(), **elements(), **speech(), **lengths(), **ampersands()}
    whole = {name: f"<Response>{text}</Response>" for name, text in inside.items()}
    return {name: text.encode() for name, text in (whole | roots()).items()} | encoded()


def attributes() -> dict[str, str]:
    odd = "".join(f" {name}=''" for name in islice(names(2), 64))
    policy = "callbackUrl='http://a.b/#" + "q&amp;" * 12 + "' action='http://a.b/#ct=0&amp;rp=z,y'"
    many = ",".join(map(str, range(500)))
    return {
        "names like a known one": conference(f" {name}=''" for name in anagrams("waitsound")),
        "names like a long known one": conference(f" startConferenceOnEnte{n}=''" for n in count()),
        "short names": conference(f" {name}=''" for name in names(3)),
        "unknown attributes": filled(repeat(f"<Wait{odd}/>")),
        "bad values": "<Wait length='x' silence='y'/>" * ELEMENTS,
        "fragments": filled(repeat(f"<Conference {policy}>x</Conference>")),
        "long fragments": filled(repeat(f"<Conference callbackUrl='http://a.b/#{'q&amp;' * 300}'>x</Conference>")),
        "patterns": filled(repeat(f"<Conference digitsMatch='{many}'>x</Conference>")),
        "patterns of one": filled((f",{n}" for n in count()), "<Conference digitsMatch='1", "'>x</Conference>"),
    }


def elements() -> dict[str, str]:
    wrong = "<GetDigits finishOnKey='x' validDigits='9'>" + PLAY + "<Wait a='b' length='x'/></GetDigits>"
    return {
        "unknown elements": "".join(f"<GetDigit{n:x}/>" for n in range(ELEMENTS)),
        "small elements": filled(repeat("<a/>")),
        "deep": filled(repeat("<a>")),
        "deep again and again": ("<a>" * 30 + "</a>" * 30) * 66,
        "what can't stand there": "<Wait><Play/><Speak/></Wait>" * 660,
        "text between": "<Wait/>x" * ELEMENTS,
        "comments": filled(repeat("x<!---->")),
        "plays": PLAY * ELEMENTS,
        "prompts": wrong * 660,
        "no URLs": "<Play>x</Play><Redirect>y</Redirect>" * (ELEMENTS // 2),
        "early media": "<PreAnswer/>" * ELEMENTS,
        "conferences": "<Conference>x</Conference>" * ELEMENTS,
    }


def speech() -> dict[str, str]:
    odd = "".join(f" {name}=''" for name in islice(names(2), 64))
    inside = {
        "a long text": "a " * 50_000,
        "pieces of speech": "<sub alias='a'>b</sub>" * ELEMENTS,
        "unknown speech": "".join(f"<q{n}>a</q{n}>" for n in range(ELEMENTS)),
        "unknown attributes of speech": filled(repeat(f"<break{odd}/>")),
        "references": filled(repeat("&#38;")),
        "sections": filled(repeat("<![CDATA[x]]>")),
    }
    spoken = {name: f"<Speak>{text}</Speak>" for name, text in inside.items()}
    deep = "<Speak>" + "<p>" * 28 + "x" + "</p>" * 28 + "</Speak>"
    return {**spoken, "spoken words": "<Speak>hello you</Speak>" * ELEMENTS, "deep speech": deep * 66}


def lengths() -> dict[str, str]:
    long = "9" * 100_000
    return {
        "a long name": f"<{'a' * 100_000}/>",
        "a long attribute": f"<Wait {'a' * 100_000}=''/>",
        "a long number": f"<Wait length='{long}'/>",
        "a long URL": f"<Play>http://a/{long}</Play>",
        "a long attribute's URL": f"<Conference action='http://a/{long}'>x</Conference>",
        "a long URL of spaces": f"<Play>http://a/{' x' * 45_000}</Play>",
        "a long URL of letters": f"<Play>http://a/{'ü' * 45_000}</Play>",
        "a long login": f"<Play>http://{'a@' * 45_000}b/</Play>",
        "many logins": f"<Play>{'http://a@' * 10_000}</Play>",
        "a long voice": f"<Speak voice='Polly.{'a' * 90_000}'>x</Speak>",
        "many digits": f"<GetDigits validDigits='{long}' finishOnKey='1'/>",
    }


def roots() -> dict[str, str]:
    of_space = "".join(f" a:{name}=''" for name in islice(names(3), 4000))
    plays = f"<Response>{PLAY * ELEMENTS}</Response>"
    return {
        "a long namespace": f"<Response xmlns:a='{PAGE}'>" + "<Wait a:b='1'/>" * ELEMENTS + "</Response>",
        "a long namespace of many attributes": f"<Response xmlns:a='{PAGE}'><Wait{of_space}/></Response>",
        "a long default namespace": f"<Response xmlns='{PAGE}'>{'<Wait/>' * ELEMENTS}</Response>",
        "namespaces": filled((f" xmlns:{name}='u'" for name in names(3)), "<Response", "/>"),
        "an encoding of 8 bits": f"<?xml version='1.0' encoding='windows-1252'?>{plays}",
        "a long encoding": f"<?xml version='1.0' encoding='{'k' * 90_000}'?><Response/>",
    }


def ampersands() -> dict[str, str]:
    """Return documents that are not well-formed, and are therefore parsed a second time."""
    return {
        "bare ampersands": filled(repeat("&")),
        "bare ampersands of URLs": filled(repeat("<Play>http://a.b/?c&d&e</Play>")),
        "nearly references": filled(repeat("&#x11111")),
        "sections without an end": "&" + filled(repeat("<![CDATA["))[1:],
        "comments without an end": "&" + filled(repeat("<!--"))[1:],
        "instructions without an end": "&" + filled(repeat("<?"))[1:],
        "sections and bare ampersands": filled(repeat("&<![CDATA[&]]>")),
        "comments and bare ampersands": filled(repeat("&<!--&-->")),
        "a bare ampersand at the end": PLAY * (ELEMENTS - 1) + "&",
    }


def encoded() -> dict[str, bytes]:
    plays = f"<Response>{PLAY * ELEMENTS}</Response>"
    found = {
        f"in {name}": f"<?xml version='1.0' encoding='{name}'?>{plays}"[:ROOM].encode(name, errors="ignore")
        for name in ("shift_jis", "gb18030", "iso2022_jp", "big5", "euc_kr", "hz", "koi8-r")
    }
    return found | {
        "in utf-16": plays[: ROOM // 2].encode("utf-16"),
        "declarations": b"<?xml encoding='" * (ROOM // 16),
        "unfinished declarations": b"<?xml " * (ROOM // 6),
        "marks": b"\xef\xbb\xbf" * (ROOM // 3),
    }


def conference(given: Iterable[str]) -> str:
    return filled(given, "<Conference", ">x</Conference>")


def filled(parts: Iterable[str], before: str = "", after: str = "") -> str:
    """Return as many parts as fit between `before` and `after`."""
    found, left = [before], ROOM - len(before) - len(after)
    for part in parts:
        left -= len(part)
        if left < 0:
            break
        found.append(part)
    return "".join([*found, after])


def names(length: int) -> Iterator[str]:
    return map("".join, product("abcdefghijklmnopqrstuvwxyz", repeat=length))


def anagrams(word: str) -> Iterator[str]:
    return map("".join, permutations(word))

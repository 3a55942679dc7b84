"""The documents of spec and SDK: what they become, and what is said about a mistake."""

import time
from xml.etree.ElementTree import Element, SubElement, tostring

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plivo import plivoxml

from ari_conf.core.elements import (
    DTMF,
    Conference,
    Dial,
    GetDigits,
    GetInput,
    Hangup,
    Play,
    PreAnswer,
    Record,
    Redirect,
    Speak,
    Wait,
)
from ari_conf.documents import parser
from ari_conf.documents.parser import MAX_BYTES, MAX_WARNING, MAX_WARNINGS, Document, parse, parse_sounds
from ari_conf.errors import InvalidDocument


def response(inside: str) -> bytes:
    return f"<Response>{inside}</Response>".encode()


def only(inside: str) -> object:
    found = parse(response(inside))
    assert found.warnings == ()
    (element,) = found.elements
    return element


def warned(inside: str) -> tuple[str, ...]:
    return parse(response(inside)).warnings


def refused(text: bytes) -> str:
    with pytest.raises(InvalidDocument) as caught:
        parse(text)
    return str(caught.value)


# Elements in order.


def test_the_example_of_the_readme() -> None:
    found = parse(
        b"""<Response>
          <Speak>Welcome.</Speak>
          <Conference callbackUrl="https://example.com/events#rc=3&amp;rp=all" record="true" floorEvent="true">
            standup
          </Conference>
          <Speak>Goodbye.</Speak>
        </Response>"""
    )
    url = "https://example.com/events#rc=3&rp=all"
    conference = Conference("standup", callback_url=url, record=True, floor_event=True)
    assert found == Document((Speak("Welcome."), conference, Speak("Goodbye.")))


def test_an_empty_response_is_a_document() -> None:
    assert parse(b"<Response/>") == Document(())
    assert parse(b"<Response>\n  <!-- nothing yet -->\n</Response>") == Document(())


def test_every_attribute_of_a_conference() -> None:
    assert only(
        '<Conference muted="true" enterSound="beep:1" exitSound="https://e.x/bye" startConferenceOnEnter="false"'
        ' endConferenceOnExit="true" stayAlone="false" waitSound="http://e.x/w" maxMembers="2" record="true"'
        ' recordFileFormat="wav" timeLimit="60" hangupOnStar="true" action="https://e.x/a" method="GET"'
        ' redirect="false" callbackUrl="https://e.x/c" callbackMethod="GET" digitsMatch="1,22" relayDTMF="false"'
        ' floorEvent="true" transcriptionType="auto" transcriptionUrl="https://e.x/t" transcriptionMethod="GET"'
        ' transcriptionLanguage="de-DE"'
        ' sendDigits="1w2" recordWhenAlone="true" beep="x">r</Conference>'
    ) == Conference(
        "r",
        muted=True,
        enter_sound="beep:1",
        exit_sound="https://e.x/bye",
        start_conference_on_enter=False,
        end_conference_on_exit=True,
        stay_alone=False,
        wait_sound="http://e.x/w",
        max_members=2,
        record=True,
        record_file_format="wav",
        time_limit=60,
        hangup_on_star=True,
        action="https://e.x/a",
        method="GET",
        redirect=False,
        callback_url="https://e.x/c",
        callback_method="GET",
        digits_match=("1", "22"),
        relay_dtmf=False,
        floor_event=True,
        transcription_type="auto",
        transcription_url="https://e.x/t",
        transcription_method="GET",
        transcription_language="de",
        send_digits="1w2",
    )


def test_the_name_is_trimmed_and_may_hold_anything() -> None:
    assert only("<Conference>\n  Große Runde № 1 \n</Conference>") == Conference("Große Runde № 1")
    assert only("<Conference>a &amp; <![CDATA[<b>]]></Conference>") == Conference("a & <b>")
    assert only(f"<Conference>{'ä' * 200}</Conference>") == Conference("ä" * 200)


@pytest.mark.parametrize(
    "spelling",
    [
        "Zoë’s room",
        "Zoe\u0308’s room",
        "Zoë’s\u00a0room",
        "Zoë’s\nroom",
        "Zoë’s\u2003room",
        "\ufeffZo\u00adë’s\u200b room",
        "\u200eZoë’s room\u200f",
    ],
)
def test_indistinguishable_spellings_are_one_name(spelling: str) -> None:
    assert only(f"<Conference>{spelling}</Conference>") == Conference("Zoë’s room")


@pytest.mark.parametrize("other", ["Zoe’s room", "zoë’s room", "Zoë’sroom", "Zoë's room", "Zoë’s  room"])
def test_distinguishable_spellings_are_two_names(other: str) -> None:
    assert only(f"<Conference>{other}</Conference>") != Conference("Zoë’s room")


def test_joiners_shape_what_is_seen_and_are_kept() -> None:
    assert only("<Conference>\U0001f469\u200d\U0001f680</Conference>") == Conference("\U0001f469\u200d\U0001f680")


def test_a_conference_without_a_usable_name_is_refused() -> None:
    assert refused(response("<Conference>\u200b</Conference>")) == (
        "Conference: it has no name; its text is the conference's name"
    )
    assert refused(response("<Conference> \n </Conference>")) == (
        "Conference: it has no name; its text is the conference's name"
    )
    assert "201 characters; at most 200" in refused(response(f"<Conference>{'a' * 201}</Conference>"))


def test_the_prompt_of_get_digits_and_the_children_of_pre_answer() -> None:
    inside = "<Speak>PIN?</Speak><Play>https://e.x/a.mp3</Play><Wait length='2'/>"
    prompt = (Speak("PIN?"), Play("https://e.x/a.mp3"), Wait(2))
    assert only(f'<GetDigits action="https://e.x/d" numDigits="4">{inside}</GetDigits>') == GetDigits(
        prompt, action="https://e.x/d", num_digits=4
    )
    redirect = Redirect("https://e.x/r")
    pre_answer = f"<PreAnswer>{inside}<GetDigits/><Redirect>https://e.x/r</Redirect></PreAnswer>"
    assert only(pre_answer) == PreAnswer((*prompt, GetDigits(), redirect))


def test_an_element_that_is_not_allowed_there_is_skipped_and_named() -> None:
    found = parse(response("<GetDigits><Conference>x</Conference><Wait/></GetDigits>"))
    assert found.elements == (GetDigits((Wait(),)),)
    assert found.warnings == ("Conference is not allowed in GetDigits (only Play, Speak, Wait): it is skipped",)
    assert warned("<Wait><Play>https://e.x/</Play></Wait>") == ("Play is not allowed in Wait: it is skipped",)


# Mistakes that cost an attribute.


def test_a_bad_value_is_named_and_the_default_used() -> None:
    found = parse(response('<Conference maxMembers="0" muted="on">r</Conference>'))
    assert found.elements == (Conference("r"),)
    assert found.warnings == (
        'Conference: maxMembers="0" is not allowed (a whole number, 1 or more); none is used',
        'Conference: muted="on" is not allowed (true or false); false is used',
    )


@pytest.mark.parametrize(
    ("inside", "complaint"),
    [
        ('<Play loop="-1">https://e.x/</Play>', 'Play: loop="-1" is not allowed (a whole number, 0 or more); 1 is'),
        ('<Speak voice="Bob">x</Speak>', 'Speak: voice="Bob" is not allowed (WOMAN, MAN or Polly.Name); WOMAN is'),
        ('<Hangup reason="tired"/>', 'Hangup: reason="tired" is not allowed (rejected or busy); none is used'),
        ('<Conference digitsMatch="1,x">r</Conference>', 'digitsMatch="1,x" is not allowed (patterns of the digits'),
        ('<Conference enterSound="beep:3">r</Conference>', 'enterSound="beep:3" is not allowed (beep:1, beep:2, an'),
        ('<Conference callbackMethod="PUT">r</Conference>', 'callbackMethod="PUT" is not allowed (GET or POST); POST'),
        ('<Wait length="0"/>', 'Wait: length="0" is not allowed (a whole number, 1 or more); 1 is used'),
        ('<Conference maxmembers="2">r</Conference>', "maxmembers is unknown and ignored; did you mean maxMembers?"),
        ('<PreAnswer colour="red"/>', "PreAnswer: the attribute colour is unknown and ignored"),
    ],
)
def test_each_complaint_names_element_attribute_value_and_what_is_allowed(inside: str, complaint: str) -> None:
    (warning,) = warned(inside)
    assert complaint in warning


def test_an_empty_url_is_as_if_not_given() -> None:
    assert only('<Conference action="" waitSound="" enterSound="">r</Conference>') == Conference("r")


# What SDKs write.


def test_values_of_the_php_sdk_for_false_zero_and_empty() -> None:
    found = parse(
        response(
            '<Play loop="none">https://e.x/a.mp3</Play><GetDigits action="none" finishOnKey="none" log="none"/>'
            '<Conference startConferenceOnEnter="none" stayAlone="None" callbackUrl="none" enterSound="none"'
            ' maxMembers="none" callbackMethod="none" digitsMatch="none">r</Conference>'
        )
    )
    assert found.elements == (
        Play("https://e.x/a.mp3", 0),
        GetDigits(finish_on_key="", log=False),
        Conference("r", start_conference_on_enter=False, stay_alone=False),
    )
    play, digits, conference = found.warnings
    assert play == 'Play: loop="none" is read as 0'
    assert digits == 'GetDigits: action="none" is read as not given, log="none" is read as false'
    assert conference.startswith(
        'Conference: startConferenceOnEnter="none" is read as false, stayAlone="None" is read as false,'
        ' callbackUrl="none" is read as not given, '
    )
    assert found.skipped == 0


def test_booleans_of_other_languages_are_read_with_a_warning() -> None:
    found = parse(
        response('<Conference muted="True" record="1" redirect="NO" method="get" maxMembers=" 5 ">r</Conference>')
    )
    assert found.elements == (Conference("r", muted=True, record=True, redirect=False, method="GET", max_members=5),)
    assert found.warnings == (
        'Conference: muted="True" is read as true, record="1" is read as true, redirect="NO" is read as false,'
        ' method="get" is read as GET',
    )


def test_an_empty_value_is_as_if_not_given() -> None:
    attributes = " ".join(
        f'{name}=""' for name in ("muted", "maxMembers", "method", "digitsMatch", "sendDigits", "action")
    )
    assert only(f"<Conference {attributes} record=' '>r</Conference>") == Conference("r")
    assert only("<GetDigits finishOnKey='' numDigits='' validDigits=''/>") == GetDigits()


def test_a_bare_ampersand_is_read_as_what_it_stands_for() -> None:
    found = parse(response('<Conference callbackUrl="https://e.x/cb?a=1&b=2&amp;lt=3&lt=4">Q&A</Conference>'))
    assert found.elements == (Conference("Q&A", callback_url="https://e.x/cb?a=1&b=2&lt=3&lt=4"),)
    assert found.warnings == ("the document is not well-formed XML: 3 bare & are read as &amp;",)
    found = parse(response("<Redirect>https://e.x/next?a=1&b=2#ct=2000&rc=3</Redirect>"))
    assert found.elements == (Redirect("https://e.x/next?a=1&b=2#ct=2000&rc=3"),)


def test_references_and_sections_stay_unchanged() -> None:
    found = parse(
        response("<!-- a & b --><Conference>1 & <![CDATA[2 & 3 &amp; 4]]> &#53; &amp;amp;</Conference><?php a & b ?>")
    )
    assert found.elements == (Conference("1 & 2 & 3 &amp; 4 5 &amp;"),)
    assert found.warnings[0].endswith(": a bare & is read as &amp;")
    assert "undefined entity" in refused(response("<Speak>a&nbsp;b & c</Speak>"))


def test_other_text_that_is_not_well_formed_is_refused() -> None:
    assert "mismatched tag" in refused(response("<Speak>Q&A</Play>"))
    assert "DTD" in refused(b'<!DOCTYPE r [<!ENTITY a "b">]><Response>&a; & b</Response>')
    assert "not well-formed" in refused(b"<Response>&<![CDATA[</Response>")


@pytest.mark.parametrize(
    ("inside", "element"),
    [
        ("<Play>https://e.x/hold music.mp3</Play>", Play("https://e.x/hold%20music.mp3")),
        ("<Redirect>https://e.x/a\n b</Redirect>", Redirect("https://e.x/a%0A%20b")),
        ("<Conference waitSound='https://e.x/a b'>r</Conference>", Conference("r", wait_sound="https://e.x/a%20b")),
        ("<Conference exitSound='https://e.x/a b'>r</Conference>", Conference("r", exit_sound="https://e.x/a%20b")),
    ],
)
def test_spaces_and_line_breaks_in_a_url_are_percent_encoded(inside: str, element: object) -> None:
    found = parse(response(inside))
    assert found.elements == (element,)
    (warning,) = found.warnings
    assert warning.endswith(": the spaces and line breaks in it are percent-encoded")


def test_no_warning_holds_a_password() -> None:
    url, bad = "https://me:s3cret@e.x/a", "ftp://me:s3cret@e.x/a"
    warnings: tuple[str, ...] = ()
    for one in (url, bad, f"{url} b", f"https://me:s3cret@e.x:0/{'a' * 3000}", "https://me:s3cret@e.x:port/"):
        for inside in (
            f"<Play>{one}</Play>",
            f"<Redirect>{one}</Redirect>",
            f"<Conference callbackUrl='{one}' enterSound='{one}'>r</Conference>",
        ):
            told = warned(inside)
            assert told and "s3cret" not in "".join(told)
            warnings += told
    assert 'Conference: callbackUrl: its user name and password are sent as "Authorization: Basic"' in warnings
    assert parse(response(f"<Play>{url}</Play>")).elements == (Play(url),)


# Mistakes that cost an element.


@pytest.mark.parametrize("name", ["Message", "MultiPartyCall", "Stream"])
def test_an_unsupported_element_is_skipped_and_named(name: str) -> None:
    found = parse(response(f"<{name}><Number>1</Number></{name}><Wait/>"))
    assert found.elements == (Wait(),)
    (warning,) = found.warnings
    assert warning.startswith(f"{name} is not supported: it is skipped, including its content")


def test_a_text_message_is_refused_with_what_to_do_instead() -> None:
    found = parse(response('<Message src="1" dst="2">Hello</Message><Wait/>'))
    assert found.elements == (Wait(),)
    assert found.warnings[0].endswith("text messages need a provider of their own; let the application send them")


def test_a_recording_of_the_whole_call() -> None:
    found = parse(response('<Record recordSession="true" recordChannelType="mono" transcriptionReportType="full"/>'))
    assert found == Document((Record(record_session=True, record_channel_type="mono"),))


def test_get_input_as_an_sdk_writes_it() -> None:
    given = (
        '<GetInput action="http://e.x/a" method="GET" inputType="dtmf" executionTimeout="20" digitEndTimeout="auto" '
        'speechEndTimeout="auto" finishOnKey="*" numDigits="4" speechModel="default" hints="" language="en-US" '
        'interimSpeechResultsCallback="" interimSpeechResultsCallbackMethod="POST" profanityFilter="false" log="true" '
        'redirect="false"><Speak>PIN</Speak><Wait/></GetInput>'
    )
    found = parse(response(given))
    wanted = GetInput((Speak("PIN"), Wait()), "http://e.x/a", "GET", "dtmf", 20, None, "*", 4, False, True)
    assert (found.elements, found.warnings) == ((wanted,), ())


def test_speech_input_is_refused_or_left_out() -> None:
    found = parse(
        response('<GetInput action="http://e.x/a" inputType="speech"><Speak>Say it</Speak></GetInput><Wait/>')
    )
    assert found.elements == (Wait(),)
    (warning,) = found.warnings
    assert warning == 'GetInput: inputType="speech" is not supported, only "dtmf" is: it is skipped, with its content'
    both = parse(response('<GetInput action="http://e.x/a" inputType=" Speech DTMF "/>'))
    assert both.elements == (GetInput((), "http://e.x/a", input_type="dtmf speech"),)
    assert 'GetInput: inputType="dtmf speech": speech is not supported; only digits are taken' in both.warnings


@pytest.mark.parametrize(
    ("attribute", "told"),
    [
        ('inputType="voice"', "dtmf, speech, or dtmf speech"),
        ('executionTimeout="61"', "a whole number from 5 to 60"),
        ('digitEndTimeout="1"', "auto, or a whole number from 2 to 10"),
        ('numDigits="33"', "a whole number from 1 to 32"),
        ('speechend="2"', "the attribute speechend is unknown"),
    ],
)
def test_a_mistake_in_get_input(attribute: str, told: str) -> None:
    found = parse(response(f'<GetInput action="http://e.x/a" {attribute}/>'))
    assert found.elements == (GetInput((), "http://e.x/a"),)
    (warning,) = found.warnings
    assert told in warning


def test_get_input_without_an_action() -> None:
    (warning,) = warned("<GetInput/>")
    assert "it has no action" in warning


def test_dtmf() -> None:
    found = parse(response('<DTMF> 1w2 W#\n</DTMF><DTMF async="false">*</DTMF><PreAnswer><DTMF>0</DTMF></PreAnswer>'))
    assert found.elements == (DTMF("1w2W#"), DTMF("*", async_=False), PreAnswer((DTMF("0"),)))
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("text", "told"), [("", "it has no digits"), ("12ab", "its text must be digits 0-9"), ("1" * 101, "at most 100")]
)
def test_dtmf_that_is_none(text: str, told: str) -> None:
    (warning,) = warned(f"<DTMF>{text}</DTMF>")
    assert told in warning and "12ab" not in warning
    assert parse(response(f"<DTMF>{text}</DTMF>")).elements == ()


def test_names_are_case_sensitive() -> None:
    found = parse(response("<conference>r</conference>"))
    assert found.elements == ()
    assert found.warnings == (
        "<conference> is not a known element: it is skipped; did you mean Conference? Names are case-sensitive",
    )


def test_text_between_elements_is_ignored() -> None:
    found = parse(response("hello <Wait/>\n there"))
    assert found.elements == (Wait(),)
    assert [w.split(":")[0] for w in found.warnings] == ["Response", "Response"]
    assert '"hello"' in found.warnings[0]
    assert '"there"' in found.warnings[1]


def test_complaints_are_counted_beyond_fifty() -> None:
    warnings = warned("<X/>" * 60)
    assert len(warnings) == MAX_WARNINGS + 1
    assert warnings[-1] == "10 more warnings are not listed"


def test_no_suggestion_is_searched_once_the_warnings_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(parser, "get_close_matches", lambda name, *_, **__: asked.append(name) or [])
    attributes = " ".join(f'muted{n}=""' for n in range(40))
    for inside, mistakes in (
        (f"<Conference {attributes}>r</Conference>" * 100, 4000),
        ("<Conferenc/>" * 1900, 1900),
        ("<Wait><Wai/></Wait>" * 900, 900),
    ):
        asked.clear()
        warnings = warned(inside)
        assert warnings[-1] == f"{mistakes - MAX_WARNINGS} more warnings are not listed"
        assert len(warnings) == MAX_WARNINGS + 1 and len(asked) == MAX_WARNINGS
    asked.clear()
    warned(f"<{'Conference' * 5}/><Conference {'muted' * 9}=''>r</Conference>")
    assert asked == [], "it is too long to be one of ours"


def test_of_an_element_s_attributes_the_first_64_are_read() -> None:
    odd = " ".join(f'a{n}=""' for n in range(63))
    found = parse(response(f'<Conference muted="true" {odd} record="true">r</Conference>'))
    assert found.elements == (Conference("r", muted=True),)
    assert found.warnings[0] == "Conference: it has 65 attributes; only the first 64 are read"
    assert parse(response(f'<Conference {odd} muted="true">r</Conference>')).elements == (Conference("r", muted=True),)


def test_a_warning_has_a_maximum_length() -> None:
    long = "x" * 5000
    warnings = parser._Warnings()
    warnings.append(long)
    assert len(warnings[0]) == MAX_WARNING
    for inside in (
        f"<{long}/>",
        f"<Wait {long}='1'/>",
        f"<Wait length='{long}'/>",
        f"{long}<Wait/>",
        f"<Conference callbackUrl='http://a/#{'x' * 1900}'>r</Conference>",
        f"<Speak><{long}>a</{long}></Speak>",
        f"<Speak><p {long}=''>a</p></Speak>",
    ):
        warnings = warned(inside)
        assert warnings and all(len(warning) <= MAX_WARNING for warning in warnings)


# Mistakes that cost the document.


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "the document is empty"),
        (b"hello", "not well-formed XML: syntax error, line 1, column 1"),
        (b"<Response>\n<Wait></Response>", "not well-formed XML: mismatched tag, line 2, column 9"),
        (b"<Response/><Response/>", "junk after document element"),
        (b"<response/>", "root is <response>; it must be <Response>; names are case-sensitive"),
        (b"<html/>", "root is <html>; it must be <Response>"),
        (b"<Response>\n\xff</Response>", "line 2, column 1"),
        (b'<?xml version="1.0" encoding="klingon"?><Response/>', "klingon"),
        (b'<?xml version="1.0" encoding="' + b"k" * 5000 + b'"?><Response/>', "kkk..."),
        (b'<!DOCTYPE Response SYSTEM "http://127.0.0.1/x.dtd"><Response/>', "a DTD or entities"),
        (b'<!DOCTYPE r [<!ENTITY a "b">]><Response>&a;</Response>', "a DTD or entities"),
        (response("<!--" + "x" * MAX_BYTES + "-->"), "at most 102400 (100 KB)"),
        (response("<a>" * 40 + "</a>" * 40), "nested too deep; at most 32 levels"),
        (response("<Wait/>" * 2001), "too many elements; at most 2000"),
    ],
)
def test_a_bad_document_is_refused_with_a_sentence(text: bytes, complaint: str) -> None:
    assert complaint in refused(text)


@pytest.mark.parametrize("name", ["action", "waitSound", "callbackUrl", "transcriptionUrl"])
@pytest.mark.parametrize("url", ["/events", "ftp://e.x/a", "https://", "https://e.x y/", "javascript:alert(1)"])
def test_a_url_that_is_not_absolute_http_costs_the_attribute(name: str, url: str) -> None:
    found = parse(response(f'<Conference {name}="{url}">r</Conference>'))
    assert found.elements == (Conference("r"),)
    assert found.warnings == (
        f'Conference: {name}="{url}" is not allowed (an absolute http or https URL); none is used',
    )
    assert found.skipped == 0


@pytest.mark.parametrize("text", ["", "hello.mp3", "file:///etc/passwd"])
def test_a_play_without_a_url_is_skipped_and_a_redirect_can_t_be_reached(text: str) -> None:
    found = parse(response(f"<Play>{text}</Play><Redirect>{text}</Redirect>"))
    assert found.elements == (Redirect(""),)
    assert found.warnings == (
        f'Play: its text "{text}" must be an absolute http or https URL: it is skipped',
        f'Redirect: its text "{text}" must be an absolute http or https URL: the redirect fails',
    )
    assert found.skipped == 1


LONGEST = "https://e.x/" + "a" * (2048 - 12)


def test_a_url_has_2048_characters_at_most() -> None:
    """Each callback, problem and log line holds it."""
    assert parse(response(f'<Conference callbackUrl="{LONGEST}">r</Conference>')).elements[0].callback_url == LONGEST
    for name in ("callbackUrl", "action", "waitSound", "transcriptionUrl"):
        (warning,) = warned(f'<Conference {name}="{LONGEST}b">r</Conference>')
        assert "an absolute http or https URL of at most 2048 characters" in warning
    for name in ("Play", "Redirect"):
        assert only(f"<{name}>{LONGEST}</{name}>").url == LONGEST
        (warning,) = warned(f"<{name}>{LONGEST}b</{name}>")
        assert "at most 2048 characters" in warning
    (warning,) = warned(f'<Conference enterSound="{LONGEST}b">r</Conference>')
    assert "beep:1, beep:2, an absolute http or https URL of at most 2048 characters" in warning


def test_long_values_are_shortened() -> None:
    digits = only(f'<GetDigits validDigits="{"12" * 5000}" finishOnKey="{"#*" * 5000}"/>')
    assert (digits.valid_digits, digits.finish_on_key) == ("12", "#*")
    (warning,) = warned(f'<Speak voice="Polly.{"A" * 5000}">hello</Speak>')
    assert "WOMAN is used" in warning


def test_a_sound_that_is_no_url_costs_only_the_attribute() -> None:
    assert len(warned('<Conference exitSound="/bye">r</Conference>')) == 1


def test_namespaces_mean_nothing() -> None:
    assert parse(b"<Response xmlns='urn:x' xmlns:y='urn:y'><Wait y:z='1' xmlns=''/></Response>") == Document((Wait(),))
    prefixed = b"<y:Response xmlns:y='urn:y'><y:Speak>a <y:break/></y:Speak><Wait/></y:Response>"
    assert parse(prefixed) == Document((Speak("a <break/>"), Wait()))
    assert "root is <y:Answer>" in refused(b"<y:Answer xmlns:y='urn:y'/>")


@pytest.mark.parametrize("before", ["\n\n", " \t", "\ufeff\n", "<!-- Plivo -->\n", "\ufeff"])
def test_text_before_the_declaration_is_ignored(before: str) -> None:
    for declaration in ("", '<?xml version="1.0" encoding="UTF-8"?>'):
        assert parse(f"{before}{declaration}\n<Response><Wait/></Response>\n\n".encode()) == Document((Wait(),))


def test_the_position_of_an_error_counts_ignored_text() -> None:
    assert "mismatched tag, line 4, column 6" in refused(b'\n\n<?xml version="1.0"?>\n<a></b>')


# Encodings.


@pytest.mark.parametrize(
    "text",
    [
        "<Response><Conference>Käse</Conference></Response>".encode(),
        b"\xef\xbb\xbf" + "<Response><Conference>Käse</Conference></Response>".encode(),
        '<?xml version="1.0" encoding="ISO-8859-1"?><Response><Conference>Käse</Conference></Response>'.encode(
            "latin-1"
        ),
        '<?xml version="1.0" encoding="UTF-8"?><Response><Conference>Käse</Conference></Response>'.encode(),
        "<Response><Conference>Käse</Conference></Response>".encode("utf-16"),
    ],
)
def test_the_declared_encoding_is_used(text: bytes) -> None:
    assert parse(text).elements == (Conference("Käse"),)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("Käse", "windows-1252"), ("Привет", "koi8-r"), ("Привет", "windows-1251"), ("会議", "Shift_JIS"),
     ("会議", "EUC-JP"), ("会议", "GB2312"), ("會議", "Big5"), ("회의", "EUC-KR"), ("Ελλάδα", "ISO-8859-7"),
     ("会議", "UTF-16LE"), ("会議", "UTF-32BE")],
)  # fmt: skip
def test_any_encoding_may_be_declared_or_come_with_the_reply(text: str, encoding: str) -> None:
    inside = f"<Response><Conference>{text}</Conference></Response>"
    assert parse(f'<?xml version="1.0" encoding="{encoding}"?>{inside}'.encode(encoding)).elements == (
        Conference(text),
    )
    assert parse(inside.encode(encoding), encoding).elements == (Conference(text),)
    declared = f'<?xml version="1.0" encoding="{encoding}"?>{inside}'.encode(encoding)
    assert parse(declared, "iso-8859-1").elements == (Conference(text),), "what it declares itself comes first"


def test_utf_16_that_is_declared_and_not_written_is_utf_8() -> None:
    text = '<?xml version="1.0" encoding="utf-16"?><Response><Conference>Käse</Conference></Response>'.encode()
    assert parse(text).elements == (Conference("Käse"),)


@pytest.mark.parametrize(
    "name", ["zlib", "rot13", "punycode", "idna", "utf-7", "unicode_escape", "undefined", "x" * 9000]
)
def test_a_declared_name_that_is_no_text_encoding_is_refused(name: str) -> None:
    for read in (parse, parse_sounds):
        with pytest.raises(InvalidDocument, match=r"the document's encoding .* is not supported"):
            read(f'<?xml version="1.0" encoding="{name}"?><Response/>'.encode(), "utf-8")
        # What a web server says of all that it sends costs nobody their call.
        read("<Response><Speak>ä</Speak></Response>".encode(), name)


def test_a_text_that_is_not_in_what_its_web_server_names_is_utf_8() -> None:
    text = "<Response><Conference>Käse</Conference></Response>"
    for charset in ("us-ascii", "binary", "utf8mb4", "utf-16"):
        assert parse(text.encode(), charset).elements == (Conference("Käse"),)
    assert parse(text.encode("latin-1"), "iso-8859-1").elements == (Conference("Käse"),)
    with pytest.raises(InvalidDocument, match="is not in the encoding utf-8"):
        parse(text.encode("latin-1"), "us-ascii")


def test_a_decoding_error_names_its_position() -> None:
    assert refused(b"<Response>\n<Speak>\xe4</Speak></Response>") == (
        "the document is not in the encoding utf-8: invalid continuation byte, line 2, column 8;"
        " the XML declaration can name another encoding"
    )


# Speak.


def test_markup_has_one_spelling() -> None:
    inside = ' Hi,\n  <speak><prosody rate="fast" volume="loud">A &lt; B</prosody></speak> <break\ttime="1s" ></break>'
    assert only(f"<Speak>{inside}</Speak>") == Speak(
        'Hi, <prosody volume="loud" rate="fast">A &lt; B</prosody> <break time="1s"/>'
    )
    assert only('<Speak><lang xml:lang="fr-FR">Oui</lang></Speak>') == Speak('<lang xml:lang="fr-FR">Oui</lang>')


def test_the_text_of_unknown_speech_elements_is_kept() -> None:
    found = parse(response('<Speak>a <audio src="x">b</audio> <p x="1">c</p></Speak>'))
    assert found.elements == (Speak("a b <p>c</p>"),)
    assert found.warnings == (
        "Speak: <audio> is not a supported SSML element; only its text is spoken",
        "Speak: the attribute x of p is unknown and ignored",
    )


def test_an_empty_speak_is_skipped_and_a_silent_one_is_not() -> None:
    found = parse(response("<Speak> <p> </p> </Speak><Speak><break time='1s'/></Speak>"))
    assert found.elements == (Speak('<break time="1s"/>'),)
    assert found.warnings == ("Speak: it has no text; it is skipped",)


def test_a_long_text_is_cut_at_a_word() -> None:
    found = parse(response(f"<Speak>{'word ' * 700}<p>more</p></Speak>"))
    (speak,) = found.elements
    assert isinstance(speak, Speak)
    assert speak.markup == ("word " * 600).strip() + "<p/>"
    assert found.warnings == ("Speak: its text has 3504 characters; the first 3000 are spoken",)


# Sound documents.


def test_only_the_sounds_of_a_sound_document_are_read() -> None:
    sounds, warnings = parse_sounds(
        response("<Wait/><Hangup/><Play loop='2'>https://e.x/a.mp3</Play><Conference/><Dial>1</Dial><Speak>x</Speak>")
    )
    assert sounds == (Wait(), Play("https://e.x/a.mp3", 2), Speak("x"))
    assert len(warnings) == 3
    assert parse_sounds(b"<Response/>") == ((), ())
    with pytest.raises(InvalidDocument):
        parse_sounds(b"<html/>")


# What the SDK writes.


def test_documents_of_the_sdk_are_read() -> None:
    speak = plivoxml.SpeakElement("Hello", voice="Polly.Amy", language="en-GB", loop=2)
    speak.add_break(strength="strong", time="300ms").add_emphasis("now", level="strong").add_lang("oui", "fr-FR")
    speak.add_p("p").add_phoneme("pecan", alphabet="ipa", ph="pɪˈkɑːn").add_prosody("x", volume="loud", rate="slow")
    speak.add_s("s").add_say_as("12", interpret_as="digits", format="").add_sub("W3C", alias="the consortium")
    speak.add_w("lead", role="amazon:VB").add_cont("end")
    digits = plivoxml.GetDigitsElement(
        "https://e.x/d", "GET", timeout=7, digit_timeout=3, finish_on_key="*", num_digits=4, retries=2, redirect=False,
        play_beep=True, valid_digits="12", invalid_digits_sound="https://e.x/no.mp3", log=False,
    )  # fmt: skip
    digits.add_speak("PIN?").add_play("https://e.x/p.mp3").add_wait(length=1)
    written = plivoxml.ResponseElement()
    written.add(plivoxml.WaitElement(length=2, silence=True, min_silence=500, beep=False)).add(speak)
    written.add(plivoxml.PlayElement("https://e.x/a.mp3", loop=0)).add(digits)
    written.add(plivoxml.PreAnswerElement().add_speak("Soon").add_wait(length=1).add_redirect("https://e.x/x"))
    conference_element = plivoxml.ConferenceElement(
        "a & b", muted=False, enter_sound="beep:2", start_conference_on_enter=True, max_members=5, time_limit=9,
        callback_url="https://e.x/c", callback_method="GET", digits_match="1,2", record_when_alone=True,
        relay_dtmf=False, transcription_type="hybrid", send_digits="1", floor_event=True,
    )  # fmt: skip
    written.add(conference_element)
    written.add(plivoxml.RedirectElement("https://e.x/r", method="GET"))
    written.add(plivoxml.HangupElement(reason="busy", schedule=60))

    found = parse(written.to_string().encode())

    assert found.warnings == ()
    wait, spoken, play, get_digits, pre_answer, conference, redirect, hangup = found.elements
    assert wait == Wait(2, True, 500, False)
    assert isinstance(spoken, Speak)
    assert (spoken.voice, spoken.language, spoken.loop) == ("Polly.Amy", "en-GB", 2)
    assert spoken.markup.startswith('Hello<break strength="strong" time="300ms"/><emphasis level="strong">now')
    assert spoken.markup.endswith('<w role="amazon:VB">lead</w> end')
    assert play == Play("https://e.x/a.mp3", 0)
    assert get_digits == GetDigits(
        (Speak("PIN?"), Play("https://e.x/p.mp3"), Wait(1)), "https://e.x/d", "GET", 7, 3, "*", 4, 2, False, True,
        "12", "https://e.x/no.mp3", False,
    )  # fmt: skip
    assert pre_answer == PreAnswer((Speak("Soon"), Wait(1), Redirect("https://e.x/x")))
    assert conference == Conference(
        "a & b", enter_sound="beep:2", max_members=5, time_limit=9, callback_url="https://e.x/c", callback_method="GET",
        digits_match=("1", "2"), relay_dtmf=False, transcription_type="hybrid", send_digits="1", floor_event=True,
    )  # fmt: skip
    assert redirect == Redirect("https://e.x/r", "GET")
    assert hangup == Hangup("busy", 60)


# Anything at all.

LAUGHS = b"<!DOCTYPE l [" + b"".join(
    f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "lol"}">'.encode() for n in range(10)
)
SCRAPS = st.sampled_from(
    ["<Response>", "</Response>", "<Conference>", "</Conference>", "<Speak>", "</Speak>", "<break/>", "<Wait/>", "x",
     "<Play>https://e.x/</Play>", '<Conference muted="', '">', "&amp;", "&#0;", "&l;", "<![CDATA[", "]]>", "<?xml ?>",
     '<Wait length="9999999999"/>', "<a:b/>", '<GetDigits action="http://[">', "\0", "ü", "\ufeff", "<!--", "-->"]
)  # fmt: skip
ATTRIBUTES = st.sampled_from(
    ["muted", "callbackUrl", "callbackMethod", "maxMembers", "digitsMatch", "length", "reason", "action", "x"]
)


def anything_or_refused(text: bytes) -> None:
    for read in (parse, parse_sounds):
        try:
            read(text)
        except InvalidDocument as error:
            assert str(error)  # a sentence


@given(st.binary(max_size=300))
@example(LAUGHS + b"]><Response>&l9;</Response>")
@example(b'<?xml version="1.0" encoding="utf-7"?><Response/>')
@example(b'<?xml version="1.0" encoding="idna"?><Response/>')
@example(b'<?xml version="1.0" encoding="\xff"?><Response/>')
def test_any_bytes_are_a_document_or_refused(text: bytes) -> None:
    anything_or_refused(text)


@given(st.lists(SCRAPS, max_size=25))
def test_any_scraps_of_xml_are_a_document_or_refused(scraps: list[str]) -> None:
    anything_or_refused("".join(scraps).encode())
    anything_or_refused(response("".join(scraps)))


@given(st.dictionaries(ATTRIBUTES, st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]))))
@settings(max_examples=200)
def test_any_attribute_values_are_a_document_or_refused(values: dict[str, str]) -> None:
    root = Element("Response")
    for tag in ("Conference", "GetDigits", "Wait", "Hangup"):
        SubElement(root, tag, values).text = "r"
    anything_or_refused(tostring(root))


@pytest.mark.parametrize(
    "text",
    [
        response("<a>" * 20_000 + "</a>" * 20_000),
        response("<a>" * 14_000 + "</a>" * 14_000),
        response("<Speak>" + "<p>" * 14_000 + "</p>" * 14_000 + "</Speak>"),
        response(f'<Conference digitsMatch="{"1," * 50_000}">r</Conference>'),
        response("<Conference " + " ".join(f'a{n}="x"' for n in range(9_000)) + ">r</Conference>"),
        response(f"<{'Conference' * 9_000}/>"),
        response("<x/>" * 1_900),
        LAUGHS + b"]><Response>&l9;</Response>",
    ],
    ids=["too big", "deep", "deep speech", "long value", "attributes", "long name", "unknown", "billion laughs"],
)
def test_hostile_documents_cost_little_time(text: bytes) -> None:
    """`tests.fuzz.costly` has many more."""
    took = []
    for _ in range(5):
        started = time.thread_time()
        anything_or_refused(text)
        took.append(time.thread_time() - started)
    assert min(took) < 0.05


def test_the_destinations_of_a_dial():
    found = parse(
        response(
            '<Dial callerId="4930123" dialMusic="real" confirmKey="1" sipHeaders="A=1,">'
            '<Number sendDigits="1w2" sendOnPreanswer="true" sipHeaders="B=2"> +49 30 1 </Number>'
            "<User>sip:bob@example.org</User><Number>+49 30 1</Number></Dial>"
        )
    )
    (dial,) = found.elements
    assert isinstance(dial, Dial) and found.warnings == ()
    assert [number.to for number in dial.numbers] == ["+49 30 1", "sip:bob@example.org"], "each is called once"
    assert dial.numbers[0].send_digits == "1w2" and dial.numbers[0].sip_headers == (("X-PH-B", "2"),)
    assert (dial.caller_id, dial.dial_music, dial.confirm_key) == ("4930123", None, "1")
    assert dial.sip_headers == (("X-PH-A", "1"),)


@pytest.mark.parametrize(
    ("inside", "warning"),
    [
        ("", "Dial: it has no Number or User; it is skipped"),
        ("<Number> </Number>", 'Number: its text "" must be a number or a SIP URI: it is skipped'),
        ("<User>bob</User>", 'User: its text "bob" must be a SIP URI: it is skipped'),
        ("<Play>http://a.b/</Play>", "Play is not allowed in Dial (only Number, User): it is skipped"),
        ("<Numbr>1</Numbr>", "<Numbr> is not a known element: it is skipped; did you mean Number?"),
    ],
)
def test_a_dial_without_a_destination_is_skipped(inside: str, warning: str):
    found = parse(response(f"<Dial>{inside}</Dial><Wait/>"))
    assert found.elements == (Wait(),) and any(each.startswith(warning) for each in found.warnings)


def test_mistakes_in_a_dial_are_named():
    many = "".join(f"<Number>{n}</Number>" for n in range(30))
    found = parse(
        response(
            f'<Dial confirmSound="http://a.b/" confirmKey="12" timeLimit="0">{many}</Dial>'
            '<Dial><User sipAuthPassword="secret" sendDigits="12a4">sip:b@a.b</User></Dial><Number>1</Number>'
        )
    )
    first, second = found.elements
    assert isinstance(first, Dial) and len(first.numbers) == 20 and isinstance(second, Dial)
    text = "\n".join(found.warnings)
    assert "confirmSound is ignored" in text and "only the first 20 of its 30 destinations" in text
    assert 'confirmKey="12" is not allowed (one of 0-9 * #)' in text and "timeLimit" in text
    assert "sipAuthPassword have no effect" in text and "Number is not allowed in Response" in text
    assert "secret" not in text and "12a4" not in text

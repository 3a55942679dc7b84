"""Stage for the plays: the core, a strict Asterisk, and web servers that respond immediately unless held back."""

from __future__ import annotations

from collections import Counter, deque
from itertools import count
from typing import Any, Literal, TypeVar

from ari_conf.core import effects as do
from ari_conf.core import elements as el
from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.account import Account
from ari_conf.core.calls.call import Call
from ari_conf.core.commands import ForAccount, PlaceCalls
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.engine import Engine
from ari_conf.core.placing import CallOptions, CallToPlace, DialAttempt
from ari_conf.core.problem_kinds import ProblemKind
from tests.fakes.asterisk import FOR_ASTERISK, Asterisk, Refused, lane

START = 1_700_000_000_000
E = TypeVar("E")

CALLBACK = "http://callback.example/"
HANGUP = "http://hangup.example/"
ACTION = "http://action.example/"
MUSIC = "http://sounds.example/music"


def stay(name: str = "standup", **attributes: Any) -> el.Conference:
    return el.Conference(name, **{"callback_url": CALLBACK, **attributes})


def waiting(**attributes: Any) -> el.Conference:
    """Return the element of a member who does not start the conference."""
    return stay(start_conference_on_enter=False, **attributes)


def players(stage: Stage, *names: str, **attributes: Any) -> None:
    """Let callers join one after another."""
    for name in names:
        stage.call(name, stay(**attributes))


class Stage:
    def __init__(self, **account: Any) -> None:
        self.account = account
        self.now = START
        numbers = count(1)
        self.engine = Engine(lambda: f"id{next(numbers)}", "https://conference.example")
        self.asterisk = Asterisk(lambda _, event: self._events.append(event))
        self.documents: dict[str, tuple[el.Element, ...] | ev.DocumentFailed] = {}
        """Elements or failure at each URL; a URL without an entry is unreachable."""
        self.sounds: dict[str, tuple[el.Prompt, ...]] = {}
        self.names_elsewhere: set[str] = set()
        self.denied: set[str] = set()
        """Numbers that no Dial may call."""
        self.wideband: set[str] = set()
        """Callers with a wideband codec."""
        self.held: set[type] = set()
        """Kinds of effects that are not carried out until `let_go`."""
        self.waiting: list[do.Effect] = []
        self.failing: Counter[type] = Counter()
        """Number of the next effects of each kind that fail: Asterisk neither responds nor carries them out."""
        self.effects: list[do.Effect] = []
        """All effects so far."""
        self.events: list[ev.Event] = []
        self._events: deque[ev.Event] = deque()

    # Events.

    def call(self, name: str, *elements: el.Element, auth: str = "A", answered: bool = False, **more: Any) -> None:
        """Let `name` call; their document contains these elements."""
        url = f"http://document.example/{name}"
        self.documents[url] = elements
        self.ring(name, auth, answered, document=url, **more)

    def ring(self, name: str, auth: str = "A", answered: bool = False, **more: Any) -> None:
        self.asterisk.call(name, answered)
        arrived = ev.CallArrived(name, f"call-{name}", f"request-{name}", auth, "+4930123", "+100", **more)
        self.tell(ev.CallArrived(**{**_fields(arrived), "answered": answered}))

    def place(
        self, *names: str, ways: tuple[str, ...] = ("PJSIP/{name}@provider",), auth: str = "A", **options: Any
    ) -> list[do.Effect]:
        """Let the API place calls; return the effects. The channels are named by `channel_of`."""
        calls = tuple(
            CallToPlace(
                f"call-{name}",
                f"+{name}",
                "4930123",
                "Ann",
                tuple(DialAttempt(way, way.format(name=name)) for way in ways),
            )
            for name in names
        )
        urls = {"answer_url": "http://document.example/placed", "hangup_url": HANGUP}
        command = PlaceCalls(Account(auth, **self.account), CallOptions(**{**urls, **options}), calls)
        return self.tell(ev.CommandReceived(f"place-{names}", ForAccount(auth, command), self.now + 5000))

    def leg(self, number: str) -> Call | None:
        """Return the live call that a Dial has placed to this number."""
        return next((call for call in self.engine.calls.values() if call.outgoing and call.to == number), None)

    def channel_of(self, name: str) -> str:
        """Return the channel by which a placed call is dialed now: of the API, or of a Dial to that number."""
        call = self.call_of(name) or self.leg(name)
        assert call is not None
        return call.channel_id

    def phone(self, name: str, does: Literal["ring", "send_early_media", "pick_up"]) -> None:
        """Let the phone of a placed call do something."""
        getattr(self.asterisk, does)(self.channel_of(name))
        self.go_on()

    def refuse(self, name: str, cause: int, sip_status: int) -> None:
        self.asterisk.refuse(self.channel_of(name), cause, sip_status)
        self.go_on()

    def told(self, name: str, event: str) -> list[dict[str, str]]:
        """Return the parameters of the requests about a call with that Event."""
        found = [dict(e.params) for e in self.effects if isinstance(e, do.PostCallback | do.FetchDocument)]
        return [p for p in found if p["CallUUID"] == f"call-{name}" and p["Event"] == event]

    def hang_up(self, *names: str) -> None:
        for name in names:
            self.asterisk.hang_up(name)
        self.go_on()

    def press(self, name: str, digits: str) -> None:
        for digit in digits:
            self.asterisk.press(name, digit)
            self.go_on()

    def talk(self, name: str) -> None:
        self.tell(ev.TalkingStarted(name))

    def fall_silent(self, name: str) -> None:
        self.tell(ev.TalkingFinished(name))

    def finish(self, name: str) -> None:
        """End what is played to this channel or into this conference."""
        where = self.asterisk.channels.get(name) or self.asterisk.bridges[name]
        self.asterisk.finish(where.playbacks[0])
        self.go_on()

    def pass_time(self, seconds: float) -> None:
        until = self.now + round(seconds * 1000)
        while (deadline := self.engine.deadline) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.tell(ev.DeadlineReached())
        self.now = until

    def tell(self, *events: ev.Event) -> list[do.Effect]:
        """Deliver events; return the effects that they led to, including all that followed."""
        before = len(self.effects)
        self._events.extend(events)
        self.go_on()
        return self.effects[before:]

    def go_on(self) -> None:
        while self._events:
            self.events.append(self._events.popleft())
            self._take(self.engine.handle_event(self.events[-1], self.now))

    def _take(self, effects: list[do.Effect]) -> None:
        for effect in effects:
            self.effects.append(effect)
            if type(effect) in self.held or lane(effect) in {lane(e) for e in self.waiting} - {None}:
                self.waiting.append(effect)
            else:
                self._carry_out(effect)

    def carry_out(self, effects: list[do.Effect]) -> None:
        """Carry out effects that no event led to."""
        self._take(effects)
        self.go_on()

    def let_go(self, *kinds: type) -> None:
        """Carry out the effects that were held back; without kinds, all of them."""
        self.held -= set(kinds) or self.held
        waiting, self.waiting = self.waiting, []
        for effect in waiting:
            if type(effect) in self.held:
                self.waiting.append(effect)
            else:
                self._carry_out(effect)
        self.go_on()

    def give_up(self) -> do.Effect:
        """Drop the one effect that is held back, so that it is never carried out, and return it."""
        (effect,) = self.waiting
        self.held, self.waiting = set(), []
        return effect

    # Observations.

    def conference(self, name: str = "standup", auth: str = "A") -> Conference | None:
        """Return the live conference of that name, or None."""
        found = [c for c in self.engine.conferences.values() if (c.auth_id, c.name) == (auth, name) and not c.ending]
        assert len(found) < 2
        return found[0] if found else None

    def conference_id(self, name: str = "standup", auth: str = "A") -> str:
        conference = self.conference(name, auth)
        assert conference is not None
        return conference.conference_id

    def bridge_id(self, name: str = "standup", auth: str = "A") -> str:
        return ids.bridge_id(self.conference_id(name, auth))

    def call_of(self, name: str) -> Call | None:
        return self.engine.calls.get(f"call-{name}")

    def hears(self, name: str) -> set[str]:
        return self.asterisk.own(name) | self.asterisk.mix(name)

    def media(self, where: str) -> list[str]:
        """Return all media that was played to this channel or bridge."""
        return [m for e in self.all(do.PlayMedia) if e.target.id == where for m in e.media]

    def all(self, kind: type[E]) -> list[E]:
        return [e for e in self.effects if isinstance(e, kind)]

    def callbacks(self, **wanted: str) -> list[dict[str, str]]:
        """Return the parameters of the conference callbacks."""
        found = [dict(e.params) for e in self.all(do.PostCallback)]
        return [p for p in found if "ConferenceAction" in p and wanted.items() <= p.items()]

    def callback_texts(self) -> list[str]:
        """Return the conference callbacks in short form: "enter ann", "exit ann star", "digits ann 12", "floor ann"."""
        return [" ".join(_in_short(p)) for p in self.callbacks()]

    def actions(self) -> list[str]:
        """Return the requested actions: "xml ann" if by FetchDocument, else "ignored ann"."""
        kinds = {do.FetchDocument: "xml", do.PostCallback: "ignored"}
        return [
            f"{kinds[type(e)]} {_name(dict(e.params))}"
            for e in self.effects
            if isinstance(e, do.FetchDocument | do.PostCallback)
            and "ConferenceMemberID" in dict(e.params)
            and "ConferenceAction" not in dict(e.params)
        ]

    def action_of(self, name: str) -> dict[str, str]:
        found = [
            dict(e.params)
            for e in self.effects
            if isinstance(e, do.FetchDocument | do.PostCallback)
            and "ConferenceAction" not in dict(e.params)
            and {"ConferenceMemberID": "", "CallUUID": f"call-{name}"}.keys() <= dict(e.params).keys()
            and dict(e.params)["CallUUID"] == f"call-{name}"
        ]
        assert len(found) == 1, found
        return found[0]

    def problems(self) -> list[tuple[int | None, str]]:
        return [(e.code, e.text) for e in self.all(do.ReportProblem)]

    def codes(self) -> list[int]:
        return [code for code, _ in self.problems() if code is not None]

    def hangup_request(self, name: str) -> dict[str, str]:
        """Return the parameters of the request to the hangup URL."""
        found = [dict(e.params) for e in self.all(do.PostCallback) if e.url == self.account["hangup_url"]]
        (request,) = [p for p in found if p["CallUUID"] == f"call-{name}"]
        return request

    def assert_nothing_is_left(self) -> None:
        assert not self.engine.calls and not self.engine.conferences
        assert self.engine.deadline is None
        assert not self.asterisk.channels and not self.asterisk.bridges
        assert not self.asterisk.playbacks and not self.asterisk.recordings

    # Execution of effects.

    def _carry_out(self, effect: do.Effect) -> None:
        match effect:
            case do.IdentifyCall(call_uuid, _, auth_id):
                account = None if auth_id == "nobody" else Account(auth_id, **self.account)
                wideband = call_uuid.removeprefix("call-") in self.wideband
                self._events.append(ev.CallIdentified(call_uuid, account, (("X-PH-Team", "blue"),), wideband))
            case do.ReadCodec(call_uuid):
                wideband = call_uuid.removeprefix("call-") in self.wideband
                self._events.append(ev.CodecRead(call_uuid, wideband))
            case do.FetchDocument(fetch_id, _, source):
                self._events.append(self._document(fetch_id, source))
            case do.FetchSoundDocument(fetch_id, _, url) if url in self.sounds:
                self._events.append(ev.SoundDocumentFetched(fetch_id, self.sounds[url]))
            case do.FetchSoundDocument(fetch_id):
                self._events.append(ev.SoundDocumentFailed(fetch_id, ProblemKind.SOUND_DOCUMENT_FAILED, "it is away"))
            case do.PrepareSound(playback_id, sound):
                name = getattr(sound, "url", None) or getattr(sound, "markup", "")
                broken = "broken" in name
                failed, prepared = (
                    ev.SoundFailed(playback_id, sound, ProblemKind.SOUND_UNPLAYABLE, "broken"),
                    ev.SoundPrepared(playback_id, name),
                )
                self._events.append(failed if broken else prepared)
            case do.AdmitDial():
                self._events.append(self._admit(effect))
            case do.ClaimName(_, name, conference_id) if name in self.names_elsewhere:
                self._events.append(ev.NameTaken(conference_id, "another"))
            case do.ClaimName(_, _, conference_id):
                self._events.append(ev.NameClaimed(conference_id))
            case _ if isinstance(effect, FOR_ASTERISK):
                self._obey(effect)

    def _admit(self, effect: do.AdmitDial) -> ev.DialAdmitted:
        """Admit the calls of a Dial to all but those in `denied`."""
        allowed = [(uuid, to) for uuid, to in effect.legs if to not in self.denied]
        calls = tuple(
            CallToPlace(uuid, to, effect.caller_ids[0], effect.caller_name, (DialAttempt("lab", f"PJSIP/{to}@lab"),))
            for uuid, to in allowed
        )
        refusals = tuple(f"the account may not call {to}" for _, to in effect.legs if to in self.denied)
        return ev.DialAdmitted(effect.dial_id, calls, refusals)

    def _document(self, fetch_id: str, source: str) -> ev.Event:
        found = self.documents.get(source)
        if found is None:
            return ev.DocumentFailed(fetch_id, ProblemKind.DOCUMENT_UNREACHABLE, "it is away")
        if isinstance(found, ev.DocumentFailed):
            return ev.DocumentFailed(fetch_id, found.kind, found.reason)
        return ev.DocumentFetched(fetch_id, found)

    def _obey(self, effect: do.Effect) -> None:
        if self.failing[type(effect)] > 0:
            self.failing[type(effect)] -= 1
            self._events.append(ev.EffectFailed(effect, "no answer in time"))
            return
        try:
            self.asterisk.obey(effect)
        except Refused as refused:
            self._events.append(ev.EffectFailed(effect, refused.reason, refused.gone, refused=not refused.gone))
            return
        if isinstance(effect, do.CreateBridge):
            self._events.append(ev.BridgeCreated(effect.bridge_id))


def _fields(event: ev.CallArrived) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


def _name(params: dict[str, str]) -> str:
    return params["CallUUID"].removeprefix("call-")


def _in_short(params: dict[str, str]) -> list[str]:
    extra = params.get("ConferenceExitReason", params.get("ConferenceDigitsMatch"))
    return [params["ConferenceAction"], _name(params), *([extra] if extra else [])]

"""Where the plays are played: the core, a strict Asterisk, and web servers that answer at once, unless held back."""

from __future__ import annotations

from collections import Counter, deque
from itertools import count
from typing import Any, TypeVar

from ari_conf.core import effects as do
from ari_conf.core import elements as el
from ari_conf.core import events as ev
from ari_conf.core.account import Account
from ari_conf.core.call import Call
from ari_conf.core.conference import Conference
from ari_conf.core.directory import Directory
from tests.fakes.asterisk import FOR_ASTERISK, Asterisk, Refused, lane

START = 1_700_000_000_000
E = TypeVar("E")

CALLBACK = "http://callback.example/"
ACTION = "http://action.example/"
MUSIC = "http://sounds.example/music"


def stay(name: str = "standup", **attributes: Any) -> el.Conference:
    return el.Conference(name, **{"callback_url": CALLBACK, **attributes})


def waiting(**attributes: Any) -> el.Conference:
    """Of one who does not start the conference."""
    return stay(start_conference_on_enter=False, **attributes)


def players(stage: Stage, *names: str, **attributes: Any) -> None:
    """They join one after another."""
    for name in names:
        stage.call(name, stay(**attributes))


class Stage:
    def __init__(self, **account: Any) -> None:
        self.account = account
        self.now = START
        ids = count(1)
        self.directory = Directory(lambda: f"id{next(ids)}", "https://conference.example")
        self.asterisk = Asterisk(lambda _, event: self._events.append(event))
        self.documents: dict[str, tuple[el.Element, ...] | ev.DocumentFailed] = {}
        """What is at a URL; nothing: it is away."""
        self.sounds: dict[str, tuple[el.Prompt, ...]] = {}
        self.names_elsewhere: set[str] = set()
        self.wideband: set[str] = set()
        """Who calls with a wideband codec."""
        self.held: set[type] = set()
        """Effects of these kinds are not carried out until `let_go`."""
        self.waiting: list[do.Effect] = []
        self.failing: Counter[type] = Counter()
        """So many of the next effects of a kind fail: Asterisk does not answer, and does not do them."""
        self.effects: list[do.Effect] = []
        """All so far."""
        self.events: list[ev.Event] = []
        self._events: deque[ev.Event] = deque()

    # What happens.

    def call(self, name: str, *elements: el.Element, auth: str = "A", answered: bool = False, **more: Any) -> None:
        """`name` calls, and this is the document that he gets."""
        url = f"http://document.example/{name}"
        self.documents[url] = elements
        self.ring(name, auth, answered, document=url, **more)

    def ring(self, name: str, auth: str = "A", answered: bool = False, **more: Any) -> None:
        self.asterisk.call(name, answered)
        arrived = ev.CallArrived(name, f"call-{name}", f"request-{name}", auth, "+4930123", "+100", **more)
        self.tell(ev.CallArrived(**{**_fields(arrived), "answered": answered}))

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
        """What is played to this channel, or into this conference, has come to its end."""
        where = self.asterisk.channels.get(name) or self.asterisk.bridges[name]
        self.asterisk.finish(where.playbacks[0])
        self.go_on()

    def pass_time(self, seconds: float) -> None:
        until = self.now + round(seconds * 1000)
        while (deadline := self.directory.deadline) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.tell(ev.TimePassed())
        self.now = until

    def tell(self, *events: ev.Event) -> list[do.Effect]:
        """The effects that this brought, all that followed included."""
        before = len(self.effects)
        self._events.extend(events)
        self.go_on()
        return self.effects[before:]

    def go_on(self) -> None:
        while self._events:
            self.events.append(self._events.popleft())
            self._take(self.directory.receive(self.events[-1], self.now))

    def _take(self, effects: list[do.Effect]) -> None:
        for effect in effects:
            self.effects.append(effect)
            if type(effect) in self.held or lane(effect) in {lane(e) for e in self.waiting} - {None}:
                self.waiting.append(effect)
            else:
                self._carry_out(effect)

    def carry_out(self, effects: list[do.Effect]) -> None:
        """What was not brought by an event."""
        self._take(effects)
        self.go_on()

    def let_go(self, *kinds: type) -> None:
        """What was held back is done now; without kinds all of it."""
        self.held -= set(kinds) or self.held
        waiting, self.waiting = self.waiting, []
        for effect in waiting:
            if type(effect) in self.held:
                self.waiting.append(effect)
            else:
                self._carry_out(effect)
        self.go_on()

    def give_up(self) -> do.Effect:
        """The one that is held back never comes about."""
        (effect,) = self.waiting
        self.held, self.waiting = set(), []
        return effect

    # What is seen.

    def conference(self, name: str = "standup", auth: str = "A") -> Conference | None:
        """The live one of that name."""
        found = [c for c in self.directory.conferences.values() if (c.auth_id, c.name) == (auth, name) and not c.ending]
        assert len(found) < 2
        return found[0] if found else None

    def conference_id(self, name: str = "standup", auth: str = "A") -> str:
        conference = self.conference(name, auth)
        assert conference is not None
        return conference.conference_id

    def call_of(self, name: str) -> Call | None:
        return self.directory.calls.get(f"call-{name}")

    def hears(self, name: str) -> set[str]:
        return self.asterisk.own(name) | self.asterisk.mix(name)

    def media(self, where: str) -> list[str]:
        """All that was played to this channel or bridge."""
        return [m for e in self.all(do.PlayMedia) if e.target.id == where for m in e.media]

    def all(self, kind: type[E]) -> list[E]:
        return [e for e in self.effects if isinstance(e, kind)]

    def callbacks(self, **wanted: str) -> list[dict[str, str]]:
        """The parameters of the conference's callbacks."""
        found = [dict(e.params) for e in self.all(do.PostCallback)]
        return [p for p in found if "ConferenceAction" in p and wanted.items() <= p.items()]

    def told(self) -> list[str]:
        """The conference's callbacks in short: "enter ann", "exit ann star", "digits ann 12", "floor ann"."""
        return [" ".join(_in_short(p)) for p in self.callbacks()]

    def actions(self) -> list[str]:
        """Whose actions were requested: by FetchDocument "xml ann", or "ignored ann"."""
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
        """What the hangup URL was told."""
        found = [dict(e.params) for e in self.all(do.PostCallback) if e.url == self.account["hangup_url"]]
        (request,) = [p for p in found if p["CallUUID"] == f"call-{name}"]
        return request

    def assert_nothing_is_left(self) -> None:
        assert not self.directory.calls and not self.directory.conferences
        assert self.directory.deadline is None
        assert not self.asterisk.channels and not self.asterisk.bridges
        assert not self.asterisk.playbacks and not self.asterisk.recordings

    # How it is carried out.

    def _carry_out(self, effect: do.Effect) -> None:
        match effect:
            case do.IdentifyCall(call_uuid, _, auth_id):
                account = None if auth_id == "nobody" else Account(auth_id, **self.account)
                wideband = call_uuid.removeprefix("call-") in self.wideband
                self._events.append(ev.CallIdentified(call_uuid, account, (("X-PH-Team", "blue"),), wideband))
            case do.FetchDocument(fetch_id, _, source):
                self._events.append(self._document(fetch_id, source))
            case do.FetchSounds(fetch_id, _, url) if url in self.sounds:
                self._events.append(ev.SoundsFetched(fetch_id, self.sounds[url]))
            case do.FetchSounds(fetch_id):
                self._events.append(ev.SoundsFailed(fetch_id, "it is away"))
            case do.PrepareSound(playback_id, sound):
                name = getattr(sound, "url", None) or getattr(sound, "markup", "")
                broken = "broken" in name
                failed, prepared = ev.SoundFailed(playback_id, sound, "broken"), ev.SoundPrepared(playback_id, name)
                self._events.append(failed if broken else prepared)
            case do.ClaimName(_, name, conference_id) if name in self.names_elsewhere:
                self._events.append(ev.NameRefused(conference_id, "another"))
            case do.ClaimName(_, _, conference_id):
                self._events.append(ev.NameClaimed(conference_id))
            case _ if isinstance(effect, FOR_ASTERISK):
                self._obey(effect)

    def _document(self, fetch_id: str, source: str) -> ev.Event:
        found = self.documents.get(source)
        if found is None:
            return ev.DocumentFailed(fetch_id, False, "it is away")
        if isinstance(found, ev.DocumentFailed):
            return ev.DocumentFailed(fetch_id, found.invalid, found.reason)
        return ev.DocumentFetched(fetch_id, found)

    def _obey(self, effect: do.Effect) -> None:
        if self.failing[type(effect)] > 0:
            self.failing[type(effect)] -= 1
            self._events.append(ev.EffectFailed(effect, "no answer in time"))
            return
        try:
            self.asterisk.obey(effect)
        except Refused as refused:
            self._events.append(ev.EffectFailed(effect, refused.reason, refused.gone))
            return
        if isinstance(effect, do.CreateBridge):
            self._events.append(ev.BridgeCreated(effect.bridge_id))


def _fields(event: ev.CallArrived) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__slots__}


def _name(params: dict[str, str]) -> str:
    return params["CallUUID"].removeprefix("call-")


def _in_short(params: dict[str, str]) -> list[str]:
    extra = params.get("ConferenceExitReason", params.get("ConferenceDigitsMatch"))
    return [params["ConferenceAction"], _name(params), *([extra] if extra else [])]

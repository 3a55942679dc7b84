"""A third-party softphone, PJSIP's, in a separate process: `python softphone.py '{"uri": ..., ...}'`.

It calls, says a WAV file, records the received audio, and writes events as lines of JSON, until its input ends.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from typing import Any

import pjsua2 as pj

TRANSPORTS = {
    "udp": pj.PJSIP_TRANSPORT_UDP,
    "tcp": pj.PJSIP_TRANSPORT_TCP,
    "tls": pj.PJSIP_TRANSPORT_TLS,
}
SRTP = {"no": pj.PJMEDIA_SRTP_DISABLED, "optional": pj.PJMEDIA_SRTP_OPTIONAL, "required": pj.PJMEDIA_SRTP_MANDATORY}
DEADLINE_MS = 60_000


def main(wanted: dict[str, Any]) -> None:
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(**what: Any) -> None:
        out.write(json.dumps(what) + "\n")

    class Call(pj.Call):  # type: ignore[misc]
        sound: Any = None
        recorder: Any = None

        def onCallState(self, _prm: Any) -> None:
            info = self.getInfo()
            say(state=info.stateText, status=info.lastStatusCode)

        def onCallMediaState(self, _prm: Any) -> None:
            try:
                audio = self.getAudioMedia(-1)
            except pj.Error:
                return
            if self.sound is None:
                self.sound, self.recorder = pj.AudioMediaPlayer(), pj.AudioMediaRecorder()
                self.sound.createPlayer(wanted["says"])
                self.recorder.createRecorder(wanted["records"])
            self.sound.startTransmit(audio)
            audio.startTransmit(self.recorder)
            say(codec=self.getStreamInfo(0).codecName)

    class Account(pj.Account):  # type: ignore[misc]
        def onRegState(self, prm: Any) -> None:
            say(registered=prm.code)

    endpoint = pj.Endpoint()
    endpoint.libCreate()
    config = pj.EpConfig()
    config.uaConfig.threadCnt, config.uaConfig.mainThreadOnly = 0, True
    config.logConfig.level = config.logConfig.consoleLevel = 0
    config.medConfig.noVad, config.medConfig.ecTailLen = True, 0
    config.medConfig.clockRate = 8000
    endpoint.libInit(config)
    transport = pj.TransportConfig()
    transport.boundAddress = wanted["host"]
    number = endpoint.transportCreate(TRANSPORTS[wanted["transport"]], transport)
    endpoint.libStart()
    endpoint.audDevManager().setNullDev()
    for codec in endpoint.codecEnum2():
        endpoint.codecSetPriority(codec.codecId, 0)
    for place, name in enumerate(wanted["codecs"]):
        endpoint.codecSetPriority(name, 250 - place)

    settings = pj.AccountConfig()
    settings.idUri = wanted["id"]
    settings.sipConfig.transportId = number
    settings.mediaConfig.transportConfig.boundAddress = transport.boundAddress
    settings.mediaConfig.srtpUse = SRTP[wanted["srtp"]]
    settings.mediaConfig.srtpSecureSignaling = 0
    if registrar := wanted.get("registrar"):
        settings.regConfig.registrarUri = registrar
        login = pj.AuthCredInfo("digest", "*", wanted["user"], 0, wanted["password"])
        settings.sipConfig.authCreds.append(login)
    account = Account()
    account.create(settings)

    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    call = Call(account)
    how = pj.CallOpParam(True)
    for name, value in wanted["headers"].items():
        header = pj.SipHeader()
        header.hName, header.hValue = name, value
        how.txOption.headers.append(header)
    call.makeCall(wanted["uri"], how)
    say(ready=True)
    for _ in range(DEADLINE_MS // 10):
        if ended.is_set():
            break
        endpoint.libHandleEvents(10)
    endpoint.hangupAllCalls()
    for _ in range(50):
        endpoint.libHandleEvents(10)
    out.flush()
    os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wanted", type=json.loads, help="the call as JSON")
    main(parser.parse_args().wanted)

"""Settings of asterisk/configure, and the template values made of them. Standard library only."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ari_conf.asterisk_config.conf_text import fill_template
from ari_conf.common import setting_sources
from ari_conf.common.installation import bundled_folder
from ari_conf.common.setting_sources import VARIABLE_PREFIX

TEMPLATES = bundled_folder("asterisk")
CODECS = {"ulaw": "", "alaw": "", "g722": "", "gsm": "gsm", "opus": "opus"}
"""Allowed codec of ARI_CONF_CODECS -> condition that it fulfills in the templates, or ""."""
PRIVATE_NETWORKS = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,127.0.0.0/8"
MIN_PASSWORD_CHARACTERS = 12
"""Minimum number of characters of a phone password, which every host that reaches the SIP port may try to guess."""
SETTINGS: dict[str, tuple[str, str]] = {
    "ARI_PASSWORD": ("", "ARI's password; required"),
    "ARI_USER": ("ari_conf", "ARI's user"),
    "ARI_APP": ("ari_conf", "the name in Stasis()"),
    "ARI_SOCKET": ("inbound", "side that opens the event WebSocket: inbound is the server, outbound is Asterisk"),
    "ARI_LISTEN": ("127.0.0.1:8089", "outbound: host:port on which the server accepts the WebSocket"),
    "WEBSOCKET_URI": ("", "outbound: URI that Asterisk opens, if it is not ws://ARI_CONF_ARI_LISTEN/ari"),
    "HTTP_BIND": ("127.0.0.1:8088", "host:port on which Asterisk serves ARI"),
    "SIP_BIND": (
        "127.0.0.1:5060",
        "host:port on which Asterisk accepts calls, separated by commas; 0.0.0.0:5060 and [::]:5060 mean all addresses",
    ),
    "SIP_PROTOCOLS": ("udp", "udp, tcp, tls, separated by commas"),
    "TLS_PORT": ("5061", "tls: port on the hosts of ARI_CONF_SIP_BIND"),
    "TLS_CERTIFICATE": ("", "tls: file of the certificate and the intermediate certificates"),
    "TLS_KEY": ("", "tls: file of the certificate's key"),
    "EXTERNAL_ADDRESS": ("", "behind NAT: the public address, to which the router forwards SIP and the RTP ports"),
    "LOCAL_NETWORKS": (PRIVATE_NETWORKS, "behind NAT: the networks that reach this machine without NAT"),
    "MEDIA_ADDRESS": ("", "address that callers send audio to, if it is not the address that they called"),
    "RTP_PORTS": ("10000-20000", "ports that callers send audio to"),
    "RTP_TIMEOUT": ("55", "seconds without a packet after which a caller counts as gone"),
    "CODECS": ("ulaw,alaw,g722", "ulaw, alaw, g722, gsm, opus, separated by commas; the caller's order counts"),
    "SRTP": ("optional", "encrypted audio: no, optional or required"),
    "QOS": ("yes", "yes: mark SIP and audio for networks that prioritize them; or no"),
    "TRUNK_HOST": ("", "your provider's server, host or host:port, to register with"),
    "TRUNK_USER": ("", "with ARI_CONF_TRUNK_HOST: the account at the provider"),
    "TRUNK_PASSWORD": ("", "password of ARI_CONF_TRUNK_USER"),
    "TRUNK_FROM_USER": (
        "no",
        "yes: calls to the provider are from ARI_CONF_TRUNK_USER, the caller ID is in PAI",
    ),
    "TRUNK_PROTOCOL": ("udp", "udp, tcp or tls"),
    "TRUNK_MATCH": (
        "",
        "addresses and networks, separated by commas, that your provider calls from; empty: those of its server",
    ),
    "TRUNK_TRUST_ID": ("no", "yes: the caller's number is taken from the provider's P-Asserted-Identity"),
    "PHONE_USER": ("", "account that softphones log in with, to call"),
    "PHONE_PASSWORD": ("", f"password of ARI_CONF_PHONE_USER, of {MIN_PASSWORD_CHARACTERS} characters or more"),
    "ANONYMOUS": ("no", "yes: anyone who reaches ARI_CONF_SIP_BIND may call, without any account"),
    "MAX_CALLS": ("1000", "maximum number of concurrent calls; at most a quarter of the RTP ports"),
    "ACCOUNT": ("demo", "account of calls for which the dialplan names no other"),
    "TRUST_CALLERS": ("no", "yes: a caller may choose account and document (see extensions.conf)"),
    "TRIES": ("30", "seconds for which a call rings while the server is down"),
    "RUN_FOLDER": ("", "folder for all files that Asterisk writes, which is created; empty: the usual folders"),
}
"""Name without ARI_CONF_ -> (default, meaning)."""
SECRETS = ("ARI_PASSWORD", "TRUNK_PASSWORD", "PHONE_PASSWORD")

SECTIONS = ("general", "options", "modules", "logfiles")
"""Asterisk's own sections, which are extended if they exist."""
CHOICES = {
    "ARI_SOCKET": ("inbound", "outbound"),
    "SRTP": ("no", "optional", "required"),
    "TRUNK_PROTOCOL": ("udp", "tcp", "tls"),
    **dict.fromkeys(("QOS", "TRUNK_TRUST_ID", "TRUNK_FROM_USER", "ANONYMOUS", "TRUST_CALLERS"), ("yes", "no")),
}


YES_NO = {"True": "yes", "False": "no"}
"""Text of a boolean of a TOML file -> value of the setting."""


class Refused(Exception):
    """Refusal to write; the text is a sentence for the user."""


@dataclass
class Wanted:
    """Values and conditions for the templates."""

    given: Mapping[str, str]
    """Settings by name, including defaults."""
    values: dict[str, str] = field(default_factory=dict)
    conditions: set[str] = field(default_factory=set)
    explicit: frozenset[str] = frozenset()
    """Names of the settings that the environment sets."""


def read_sources(environment: Mapping[str, str], default_config: Path | None) -> dict[str, str]:
    """Return the environment with the settings that files give, in the form of variables. Raises SettingsError."""
    names, secrets = [name.lower() for name in SETTINGS], [name.lower() for name in SECRETS]
    found = setting_sources.read(environment, names, secrets, default_config)
    texts = {name: YES_NO.get(str(one.value), setting_sources.as_text(one.value)) for name, one in found.items()}
    return {**environment} | {VARIABLE_PREFIX + name.upper(): text for name, text in texts.items()}


def read_settings(environment: Mapping[str, str]) -> Wanted:
    given = {name: environment.get(f"ARI_CONF_{name}") or default for name, (default, _) in SETTINGS.items()}
    explicit = frozenset(name for name in SETTINGS if environment.get(f"ARI_CONF_{name}"))
    if not given["ARI_PASSWORD"]:
        raise Refused(
            "set ARI_CONF_ARI_PASSWORD, here and for `ari-conf serve`; for example to the output of "
            "`openssl rand -hex 16`"
        )
    for name, text in given.items():
        # In Asterisk's files, a semicolon begins a comment, and a line break ends the value.
        if re.search(r"[;\n\r]", text):
            raise Refused(f"ARI_CONF_{name} must not contain ; or a line break")
    for name, choices in CHOICES.items():
        if given[name] not in choices:
            raise Refused(f"ARI_CONF_{name} must be {' or '.join(choices)}, not {given[name]}")
    if given["ARI_USER"] == "general":
        raise Refused("ARI_CONF_ARI_USER must not be general: ari.conf has a section of that name")
    wanted = Wanted(given, dict(given), {"alone"}, explicit)
    _add_http(wanted)
    _add_sip(wanted)
    _add_audio(wanted)
    _add_trunk(wanted)
    _add_phone(wanted)
    _add_limits(wanted)
    if given["ANONYMOUS"] == "yes":
        wanted.conditions.add("anonymous")
    if given["ARI_SOCKET"] == "outbound":
        wanted.conditions.add("outbound")
    wanted.values["WEBSOCKET_URI"] = given["WEBSOCKET_URI"] or f"ws://{given['ARI_LISTEN']}/ari"
    run = Path(given["RUN_FOLDER"]) if given["RUN_FOLDER"] else None
    default_folders = {"RUN": "run", "LOG": "log", "SPOOL": "spool", "DB": "lib"}
    for name, place in default_folders.items():
        wanted.values[f"{name}_FOLDER"] = str(run / name.lower()) if run else f"/var/{place}/asterisk"
    wanted.values |= {f"SECTION_{name.upper()}": f"[{name}]" for name in SECTIONS}
    wanted.conditions |= {"own_log", "enabled", "bindaddr", "bindport", "sessionlimit", "session_keep_alive"}
    wanted.conditions |= {"websocket_write_timeout", "maxcalls", "maxfiles", "mindtmfduration"}
    return wanted


def _parse_host_port(name: str, text: str) -> tuple[str, str]:
    """Return the host, without brackets, and the port. Raises Refused."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise Refused(f"ARI_CONF_{name} must be host:port, not {text}")
    return host, port


def _parse_address(name: str, text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise Refused(
            f"ARI_CONF_{name} must name an IP address, not {text}; 0.0.0.0 or [::] mean all addresses of this machine"
        ) from None


def _parse_networks(name: str, text: str, *, allow_names: bool = False) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    for part in found:
        try:
            ipaddress.ip_network(part, strict=False)
        except ValueError:
            if not allow_names or not re.fullmatch(r"[A-Za-z0-9.-]+", part) or re.fullmatch(r"[0-9.]+", part):
                raise Refused(
                    f"ARI_CONF_{name} must be addresses and networks separated by commas, such as 203.0.113.0/24, "
                    f"not {part}"
                ) from None
    return found


def _add_http(wanted: Wanted) -> None:
    wanted.values["HTTP_HOST"], wanted.values["HTTP_PORT"] = _parse_host_port("HTTP_BIND", wanted.given["HTTP_BIND"])


def _add_sip(wanted: Wanted) -> None:
    given = wanted.given
    binds = [_parse_host_port("SIP_BIND", text.strip()) for text in given["SIP_BIND"].split(",")]
    addresses = [_parse_address("SIP_BIND", host) for host, _ in binds]
    protocols = [text.strip() for text in given["SIP_PROTOCOLS"].split(",")]
    if wrong := [text for text in protocols if text not in ("udp", "tcp", "tls")]:
        raise Refused(f"ARI_CONF_SIP_PROTOCOLS may name udp, tcp and tls, not {wrong[0]}")
    if "tls" in protocols:
        if not (given["TLS_CERTIFICATE"] and given["TLS_KEY"]):
            raise Refused(
                "tls needs ARI_CONF_TLS_CERTIFICATE and ARI_CONF_TLS_KEY: files that Asterisk's user can read"
            )
        _parse_host_port("TLS_PORT", f"host:{given['TLS_PORT']}")
    if given["EXTERNAL_ADDRESS"] and not re.fullmatch(r"[A-Za-z0-9.:-]+", given["EXTERNAL_ADDRESS"]):
        raise Refused(f"ARI_CONF_EXTERNAL_ADDRESS must be an address or a name, not {given['EXTERNAL_ADDRESS']}")
    networks = _parse_networks("LOCAL_NETWORKS", given["LOCAL_NETWORKS"])
    blocks = []
    for number, (address, (_, port)) in enumerate(zip(addresses, binds, strict=True), 1):
        for protocol in protocols:
            host = f"[{address}]" if address.version == 6 else str(address)
            lines = [f"[{protocol}{number if number > 1 else ''}]", "type = transport", f"protocol = {protocol}"]
            lines.append(f"bind = {host}:{given['TLS_PORT'] if protocol == 'tls' else port}")
            if protocol == "tls":
                lines += [f"cert_file = {given['TLS_CERTIFICATE']}", f"priv_key_file = {given['TLS_KEY']}"]
                lines.append("method = tlsv1_2")
            if given["QOS"] == "yes":
                lines += ["tos = cs3", "cos = 3"]
            if given["EXTERNAL_ADDRESS"] and address.version == 4:
                lines.append("; To phones outside these networks, Asterisk announces its public address.")
                lines += [f"external_{what}_address = {given['EXTERNAL_ADDRESS']}" for what in ("media", "signaling")]
                lines += [f"local_net = {network}" for network in networks]
            blocks.append("\n".join(lines))
    wanted.values["TRANSPORTS"] = "\n\n".join(blocks)
    if any(address.version == 6 for address in addresses):
        wanted.conditions.add("ipv6")
    if all(address.is_loopback for address in addresses):
        wanted.conditions.add("loopback")
    if given["MEDIA_ADDRESS"]:
        if _parse_address("MEDIA_ADDRESS", given["MEDIA_ADDRESS"]).is_unspecified:
            raise Refused("ARI_CONF_MEDIA_ADDRESS must be an address that callers can send to, or empty")
        wanted.conditions.add("media_address")
    elif len(addresses) == 1 and addresses[0].version == 4 and not addresses[0].is_unspecified:
        wanted.values["MEDIA_ADDRESS"] = str(addresses[0])
        wanted.conditions.add("media_address")
    # Otherwise Asterisk names the address from which it reaches the caller.


def _add_audio(wanted: Wanted) -> None:
    given = wanted.given
    codecs = [text.strip() for text in given["CODECS"].split(",")]
    if wrong := [text for text in codecs if text not in CODECS]:
        raise Refused(
            f"ARI_CONF_CODECS may name {', '.join(CODECS)}, not {wrong[0]}: Debian's Asterisk can't translate others"
        )
    wanted.values["CODECS"] = ",".join(codecs)
    wanted.conditions |= {CODECS[codec] for codec in codecs} - {""}
    if given["SRTP"] != "no":
        wanted.conditions.add("srtp")
    if given["SRTP"] == "optional":
        wanted.conditions.add("srtp_optional")
    if given["QOS"] == "yes":
        wanted.conditions.add("qos")


def _add_trunk(wanted: Wanted) -> None:
    given = wanted.given
    host, user = given["TRUNK_HOST"], given["TRUNK_USER"]
    if host and not re.fullmatch(r"[A-Za-z0-9.-]+(:[0-9]+)?", host):
        raise Refused(f"ARI_CONF_TRUNK_HOST must be host or host:port, not {host}")
    if bool(user) != bool(given["TRUNK_PASSWORD"]) or (user and not host):
        raise Refused("ARI_CONF_TRUNK_USER needs ARI_CONF_TRUNK_PASSWORD and ARI_CONF_TRUNK_HOST: all three, or none")
    if not host and not given["TRUNK_MATCH"]:
        return
    wanted.conditions.add("trunk")
    name, _, _ = host.partition(":")
    match = _parse_networks("TRUNK_MATCH", given["TRUNK_MATCH"] or name, allow_names=True)
    wanted.values["TRUNK_MATCH"] = "\n".join(f"match = {part}" for part in match)
    if given["TRUNK_TRUST_ID"] == "yes":
        wanted.conditions.add("trunk_trust_id")
    if host:
        wanted.conditions.add("trunk_host")
        protocol = "" if given["TRUNK_PROTOCOL"] == "udp" else rf"\;transport={given['TRUNK_PROTOCOL']}"
        wanted.values["TRUNK_SERVER"] = f"sip:{host}{protocol}"
    if user:
        wanted.conditions.add("trunk_user")
        if given["TRUNK_FROM_USER"] == "yes":
            wanted.conditions.add("trunk_from_user")
        wanted.values["TRUNK_CLIENT"] = f"sip:{user if '@' in user else f'{user}@{name}'}"
        wanted.values["TRUNK_CONTACT"] = user.partition("@")[0]


def _add_phone(wanted: Wanted) -> None:
    user, password = wanted.given["PHONE_USER"], wanted.given["PHONE_PASSWORD"]
    if not user and not password:
        return
    if not user or len(password) < MIN_PASSWORD_CHARACTERS:
        raise Refused(
            f"ARI_CONF_PHONE_USER needs ARI_CONF_PHONE_PASSWORD, of {MIN_PASSWORD_CHARACTERS} characters or more; "
            "for example the output of `openssl rand -hex 16`"
        )
    reserved = {"global", "system", "anonymous", "udp", "tcp", "tls"}
    if not re.fullmatch(r"[A-Za-z0-9._-]+", user) or user in reserved or user.startswith("ari_conf"):
        raise Refused(f"ARI_CONF_PHONE_USER must be a name of letters and digits, such as phone, not {user}")
    wanted.conditions.add("phone")


def _add_limits(wanted: Wanted) -> None:
    given = wanted.given
    ports = re.fullmatch(r"([0-9]+)-([0-9]+)", given["RTP_PORTS"])
    if not ports:
        raise Refused(f"ARI_CONF_RTP_PORTS must be two numbers such as 10000-20000, not {given['RTP_PORTS']}")
    calls, timeout = given["MAX_CALLS"], given["RTP_TIMEOUT"]
    if not (calls.isdigit() and timeout.isdigit() and given["TRIES"].isdigit()):
        raise Refused(
            "ARI_CONF_MAX_CALLS, ARI_CONF_RTP_TIMEOUT and ARI_CONF_TRIES must be numbers, "
            f"not {calls}, {timeout} and {given['TRIES']}"
        )
    # A refused call also keeps its ports until the caller acknowledges the refusal, or for 32 s.
    if 4 * int(calls) > int(ports[2]) - int(ports[1]):
        raise Refused(
            f"ARI_CONF_RTP_PORTS are too few for ARI_CONF_MAX_CALLS={calls}: use four ports for each call, "
            "or allow fewer calls"
        )
    wanted.values |= {"RTP_START": ports[1], "RTP_END": ports[2]}


def list_templates() -> list[str]:
    return sorted(path.name for path in TEMPLATES.glob("*.conf"))


def fill_named_template(name: str, wanted: Wanted) -> str:
    if name not in list_templates():
        raise Refused(f"{name} does not exist; the files are: {' '.join(list_templates())}")
    if name == "pjsip.conf" and "trunk_user" in wanted.conditions:
        protocol, protocols = wanted.given["TRUNK_PROTOCOL"], wanted.given["SIP_PROTOCOLS"]
        if protocol not in map(str.strip, protocols.split(",")):
            raise Refused(
                f"ARI_CONF_TRUNK_PROTOCOL={protocol} needs {protocol} in ARI_CONF_SIP_PROTOCOLS, which is {protocols}: "
                "without a transport for it Asterisk can't register"
            )
    return fill_template((TEMPLATES / name).read_text(), wanted.values, wanted.conditions)


def header_of(path: Path) -> str:
    return f"; {path}, written whole by asterisk/configure of ari_conf.\n"

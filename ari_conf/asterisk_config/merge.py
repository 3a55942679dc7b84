"""Additions of asterisk/configure --merge to an existing configuration. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ari_conf.asterisk_config.conf_text import fill_template, sections, settings
from ari_conf.asterisk_config.template_settings import SECTIONS, TEMPLATES, Refused, Wanted, header_of

ADDITIONS_FOLDER = "ari_conf"
"""Name of the folder beside the user's files that contains the additions."""
DEFAULT_FILES = ("ari.conf", "http.conf", "extensions.conf", "pjsip.conf", "logger.conf", "modules.conf")
OPTIONAL_FILES = ("asterisk.conf", "websocket_client.conf")


def build_merged(folder: Path, names: list[str], wanted: Wanted) -> dict[Path, str]:
    """Return the text of each file to write. Raises Refused if a merge is impossible or would define anything twice."""
    if not (folder / "modules.conf").exists():
        raise Refused(
            f"{folder} has no configuration that `--merge` could add to; without `--merge`, a whole configuration is "
            "written"
        )
    for name in names:
        if name not in DEFAULT_FILES + OPTIONAL_FILES:
            raise Refused(f"`--merge` does not change {name}; it adds to {', '.join(DEFAULT_FILES + OPTIONAL_FILES)}")
    outbound = wanted.given["ARI_SOCKET"] == "outbound"
    names = names or [*DEFAULT_FILES, *(["websocket_client.conf"] if outbound else [])]
    texts: dict[Path, str] = {}
    for name in names:
        path = folder / name
        text = path.read_text(errors="surrogateescape") if path.exists() else ""
        if text.startswith(header_of(path)):
            raise Refused(f"{path} was written whole by asterisk/configure: use `--force` instead of `--merge`")
        if not (piece := _Merge(folder, name, wanted).piece()):
            continue
        intro = f"; Included by {path}. Written by asterisk/configure --merge, which writes it again each time.\n"
        texts[folder / ADDITIONS_FOLDER / name] = intro + piece
        texts[path] = _include_additions(name, text)
    return texts


def _include_additions(name: str, text: str) -> str:
    """Return the text of the user's file with the line that includes the additions."""
    line = f"#tryinclude {ADDITIONS_FOLDER}/{name}"
    if line in text.splitlines():
        return text
    note = "; asterisk/configure --merge of ari_conf added the next line.\n"
    if name == "pjsip.conf":
        # The line comes first, because a template must precede the sections that use it.
        return f"{note}{line}\n\n{text}"
    return text + ("" if not text or text.endswith("\n") else "\n") + f"\n{note}{line}\n"


def has_transport(folder: Path) -> bool:
    """Return whether pjsip.conf has a transport, without which Asterisk accepts no SIP. Debian's has only examples."""
    lines = (line for _, found in sections(folder / "pjsip.conf", folder, folder / ADDITIONS_FOLDER) for line in found)
    return any(re.match(r"type\s*=>?\s*transport\b", line) for line in lines)


class _Merge:
    """Additions to one of the user's files."""

    def __init__(self, folder: Path, name: str, wanted: Wanted) -> None:
        self._folder, self._name, self._wanted = folder, name, wanted
        self._additions_folder = folder / ADDITIONS_FOLDER
        self._path = folder / name
        self._sections = {section for section, _ in sections(self._path, folder, self._additions_folder)}

    def piece(self) -> str:
        wanted, conditions = self._wanted, self._wanted.conditions - {"alone"}
        self._refuse_existing_sections()
        values = dict(wanted.values)
        for section in SECTIONS:
            # Asterisk skips or rejects a second section of a name without (+), and a first section with (+).
            more = "(+)" if section in self._sections else ""
            values[f"SECTION_{section.upper()}"] = f"[{section}]{more}"
        if self._name == "modules.conf":
            return self._build_modules(values["SECTION_MODULES"])
        if self._name == "logger.conf":
            if self._has_security_log():
                return ""
            conditions -= {"own_log"} if "logfiles" in self._sections else set()
        if self._name in ("http.conf", "ari.conf", "asterisk.conf"):
            conditions -= self._sufficient_settings()
        if self._name == "pjsip.conf":
            conditions = self._endpoint_conditions(conditions)
        return fill_template((TEMPLATES / self._name).read_text(), values, conditions)

    def _refuse_existing_sections(self) -> None:
        """Check that the user's file has none of the sections to add. Raises Refused if it has one."""
        given = self._wanted.given
        setting_by_section = {
            "ari.conf": {given["ARI_USER"]: "ARI_CONF_ARI_USER", f"{given['ARI_APP']}_websocket": "ARI_CONF_ARI_APP"},
            "websocket_client.conf": {given["ARI_APP"]: "ARI_CONF_ARI_APP"},
            "extensions.conf": {"ari_conf": ""},
            "pjsip.conf": {given["PHONE_USER"] or "ari_conf_calls": "ARI_CONF_PHONE_USER"}
            | {f"ari_conf_{what}": "" for what in ("calls", "trunk", "phone")}
            | ({"anonymous": "ARI_CONF_ANONYMOUS"} if given["ANONYMOUS"] == "yes" else {}),
        }.get(self._name, {})
        for section, setting in setting_by_section.items():
            if section in self._sections:
                alternative = f", or set {setting} to another value" if setting else ""
                raise Refused(
                    f"{self._path} has a section [{section}] already, so nothing was written: remove it{alternative}; "
                    "if it was copied from ari_conf, `--merge` writes it to a separate file"
                )

    def _read_settings(self, section: str) -> dict[str, str]:
        return dict(settings(self._path, self._folder, section, self._additions_folder))

    def _sufficient_settings(self) -> set[str]:
        """Return the settings that the user's file already has with sufficient values."""
        if self._name == "asterisk.conf":
            return {key for key in ("maxcalls", "maxfiles", "mindtmfduration") if key in self._read_settings("options")}
        existing = self._read_settings("general")
        if existing.get("enabled", "no").lower() in ("yes", "true", "on", "1"):
            existing["enabled"] = ""
        else:
            existing.pop("enabled", None)
        minimums = {"sessionlimit": 1000, "session_keep_alive": 60000, "websocket_write_timeout": 2000}
        for key, minimum in minimums.items():
            value = existing.get(key, "")
            if value and not (value.isdigit() and int(value) >= minimum):
                del existing[key]
        if self._name == "http.conf":
            self._adopt_http_address(existing)
        return set(existing)

    def _adopt_http_address(self, existing: Mapping[str, str]) -> None:
        """Adopt the address of the user's HTTP server, which other programs use too.

        Raises Refused if ARI_CONF_HTTP_BIND is set to another address.
        """
        wanted = self._wanted
        host, port = existing.get("bindaddr", wanted.values["HTTP_HOST"]), existing.get("bindport", "")
        if not port and "enabled" in existing:
            port = "8088"
        port = port or wanted.values["HTTP_PORT"]
        requested = (wanted.values["HTTP_HOST"], wanted.values["HTTP_PORT"])
        if "HTTP_BIND" in wanted.explicit and (host, port) != requested:
            raise Refused(
                f"{self._path} has Asterisk's HTTP server at {host}:{port}: set ARI_CONF_HTTP_BIND to that "
                "address, or unset it"
            )
        wanted.values["HTTP_HOST"], wanted.values["HTTP_PORT"] = host, port
        wanted.values["HTTP_PREFIX"] = "".join(f"/{part}" for part in existing.get("prefix", "").split("/") if part)

    def _has_security_log(self) -> bool:
        levels = (value for _, value in settings(self._path, self._folder, "logfiles", self._additions_folder))
        return any("security" in re.split(r"[\s,]+", value) for value in levels)

    def _endpoint_conditions(self, conditions: set[str]) -> set[str]:
        # Without an explicit setting, the user's transports decide.
        if "MEDIA_ADDRESS" not in self._wanted.explicit:
            conditions = conditions - {"media_address"}
        binds = [line for _, lines in sections(self._path, self._folder, self._additions_folder) for line in lines]
        v6 = any(re.match(r"bind\s*=>?\s*(\[|[0-9a-fA-F]*::)", line) for line in binds)
        return conditions | {"ipv6"} if v6 else conditions - {"ipv6"}

    def _build_modules(self, head: str) -> str:
        existing = settings(self._path, self._folder, "modules", self._additions_folder)
        modules_by_kind = {kind: set[str]() for kind in ("load", "preload", "require", "preload-require", "noload")}
        autoload = "yes"
        for key, value in existing:
            if key in modules_by_kind:
                modules_by_kind[key].add(value.removesuffix(".so"))
            elif key == "autoload":
                autoload = value.lower()
        template = fill_template((TEMPLATES / "modules.conf").read_text(), self._wanted.values, self._wanted.conditions)
        needed = re.findall(r"^load = (\S+)", template, re.M)
        if "outbound" not in self._wanted.conditions:
            needed.remove("res_websocket_client")
        if excluded := [name for name in needed if name in modules_by_kind["noload"]]:
            raise Refused(f"{self._path} has noload for required modules: remove it for {', '.join(excluded)}")
        if autoload in ("yes", "true", "on", "1"):
            return ""
        loaded = set().union(*modules_by_kind.values())
        missing = [name for name in needed if name not in loaded]
        return "\n".join([head, *(f"load = {name}" for name in missing)]) + "\n" if missing else ""

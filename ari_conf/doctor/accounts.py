"""The accounts, and those that the dialplan names."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis

from ari_conf import accounts
from ari_conf.doctor.found import DEADLINE, Wrong
from ari_conf.lanes import PREFIX
from ari_conf.redis_client import connect_in_threads
from ari_conf.settings import Settings

STRANGERS = PREFIX + "strangers"
MOST_NAMED = 5
"""Accounts that are named in one sentence."""
MOST_READ = 1_000_000
"""Characters of a file of the dialplan."""
ETC = Path("/etc/asterisk")
_SET = re.compile(r"Set\(_{0,2}ACCOUNT=([0-9A-Za-z]{1,40})\)")


def there(settings: Settings) -> str:
    known = _known(settings)
    if not known:
        raise Wrong("there is none, so that every call is refused: `ari-conf account add ACCOUNT --answer-url URL`")
    return f"{len(known)}: {_some(known)}"


def in_dialplan(settings: Settings) -> str:
    """Those that calls came for, and those in extensions.conf, where it can be read."""
    known = set(_known(settings))
    called = [one for one in _strangers(settings) if one not in known]
    if called:
        raise Wrong(
            f"calls came for {_some(called)} in the last day, which no account is, and were refused: correct Stasis() "
            f"in the dialplan, or `ari-conf account add {called[0]}`"
        )
    path, named = _named(settings)
    if unknown := sorted(named - known):
        raise Wrong(
            f"{path} names the account {_some(unknown)}, which does not exist: correct it, or "
            f"`ari-conf account add {unknown[0]}`"
        )
    if path is None:
        return "its file can't be read from here; no call came for an unknown account in the last day"
    return f"{path} names {_some(sorted(named)) or 'no account literally'}; no call came for an unknown account"


def _known(settings: Settings) -> list[str]:
    return _asked(settings, lambda client: sorted(accounts.ids(client)))


def _strangers(settings: Settings) -> list[str]:
    return _asked(settings, lambda client: [one.decode(errors="replace") for one in client.zrange(STRANGERS, 0, -1)])


def _asked(settings: Settings, question: Any) -> list[str]:
    client = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        return list(question(client))
    except (redis.RedisError, OSError) as error:
        raise Wrong(f"not known, since Redis does not answer ({error})") from None
    finally:
        client.close()


def _named(settings: Settings) -> tuple[Path | None, set[str]]:
    """The file of the dialplan, and the accounts that it names literally."""
    stasis = re.compile(rf"Stasis\({re.escape(settings.ari_app)},\s*([0-9A-Za-z]{{1,40}})\s*[,)]")
    for path in _files(settings):
        with suppress(OSError), path.open(errors="replace") as file:
            text = "\n".join(line for line in file.read(MOST_READ).splitlines() if not line.lstrip().startswith(";"))
            found = set(stasis.findall(text))
            if found or f"Stasis({settings.ari_app}," in text:
                return path, found | set(_SET.findall(text))
    return None, set()


def _files(settings: Settings) -> list[Path]:
    """Asterisk's, and that of `ari-conf up`, whose recording folder is FOLDER/spool/recording."""
    folders = [ETC]
    if settings.recording_folder is not None and len(settings.recording_folder.parents) > 1:
        folders.insert(0, settings.recording_folder.parents[1] / "etc")
    return [folder / "extensions.conf" for folder in folders]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more

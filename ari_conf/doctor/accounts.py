"""Checks of the accounts, and of the accounts that the dialplan names."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis

from ari_conf.common.redis_client import connect_in_threads
from ari_conf.common.redis_keys import PREFIX
from ari_conf.doctor.check import DEADLINE, CheckFailed
from ari_conf.settings import Settings
from ari_conf.store import accounts

UNKNOWN_ACCOUNTS_KEY = PREFIX + "unknown-accounts"
MAX_NAMED = 5
"""Maximum number of accounts named in one sentence."""
MAX_READ_CHARACTERS = 1_000_000
"""Maximum number of characters read of a dialplan file."""
ETC = Path("/etc/asterisk")
_SET = re.compile(r"Set\(_{0,2}ACCOUNT=([0-9A-Za-z]{1,40})\)")


def accounts_exist(settings: Settings) -> str:
    known = _account_ids(settings)
    if not known:
        raise CheckFailed(
            "no account exists, so every call is refused: run `ari-conf account add ACCOUNT --answer-url URL`"
        )
    return f"{len(known)}: {_shorten(known)}"


def in_dialplan(settings: Settings) -> str:
    """Check the accounts of recent calls, and the accounts in extensions.conf if it is readable."""
    known = set(_account_ids(settings))
    called_unknown = [one for one in _unknown_accounts(settings) if one not in known]
    if called_unknown:
        raise CheckFailed(
            f"calls for accounts that do not exist ({_shorten(called_unknown)}) were refused in the last day: "
            f"correct Stasis() in the dialplan, or run `ari-conf account add {called_unknown[0]}`"
        )
    path, named = _dialplan_accounts(settings)
    if unknown := sorted(named - known):
        raise CheckFailed(
            f"{path} names the account {_shorten(unknown)}, which does not exist: correct the file, or "
            f"run `ari-conf account add {unknown[0]}`"
        )
    if path is None:
        return "its file could not be read here; no call for an unknown account arrived in the last day"
    return f"{path} names {_shorten(sorted(named)) or 'no account literally'}; no call for an unknown account"


def _account_ids(settings: Settings) -> list[str]:
    return _query_redis(settings, lambda client: sorted(accounts.ids(client)))


def _unknown_accounts(settings: Settings) -> list[str]:
    return _query_redis(
        settings, lambda client: [one.decode(errors="replace") for one in client.zrange(UNKNOWN_ACCOUNTS_KEY, 0, -1)]
    )


def _query_redis(settings: Settings, question: Any) -> list[str]:
    client = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        return list(question(client))
    except (redis.RedisError, OSError) as error:
        raise CheckFailed(f"could not be checked: Redis does not respond ({error})") from None
    finally:
        client.close()


def _dialplan_accounts(settings: Settings) -> tuple[Path | None, set[str]]:
    """Return the dialplan file, or None, and the accounts that it names literally."""
    stasis = re.compile(rf"Stasis\({re.escape(settings.ari_app)},\s*([0-9A-Za-z]{{1,40}})\s*[,)]")
    for path in _dialplan_files(settings):
        with suppress(OSError), path.open(errors="replace") as file:
            text = "\n".join(
                line for line in file.read(MAX_READ_CHARACTERS).splitlines() if not line.lstrip().startswith(";")
            )
            found = set(stasis.findall(text))
            if found or f"Stasis({settings.ari_app}," in text:
                return path, found | set(_SET.findall(text))
    return None, set()


def _dialplan_files(settings: Settings) -> list[Path]:
    """Return the dialplan files to try: that of `ari-conf up`, which records to FOLDER/spool/recording; then /etc's."""
    folders = [ETC]
    if settings.recording_folder is not None and len(settings.recording_folder.parents) > 1:
        folders.insert(0, settings.recording_folder.parents[1] / "etc")
    return [folder / "extensions.conf" for folder in folders]


def _shorten(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more

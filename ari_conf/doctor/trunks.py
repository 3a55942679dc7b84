"""Check of the trunks: each one's endpoint exists in Asterisk and is reachable, and an account may dial."""

from __future__ import annotations

from typing import Any

import redis

from ari_conf.common.redis_client import connect_in_threads
from ari_conf.dialing import trunk_store, trunks
from ari_conf.dialing.trunks import Trunk
from ari_conf.doctor import asterisk
from ari_conf.doctor.check import DEADLINE, CheckFailed, Doubtful
from ari_conf.errors import TrunkError
from ari_conf.settings import Settings
from ari_conf.store import accounts


def trunks_usable(settings: Settings) -> str:
    found, dialing = _configured(settings)
    enabled = [trunk for trunk in found if trunk.enabled]
    if not enabled:
        return "none is configured or enabled, so nothing is dialed; `ari-conf trunk add` adds one"
    missing, offline = _endpoint_problems(settings, enabled)
    if missing:
        raise CheckFailed(
            f"Asterisk has no PJSIP endpoint {', '.join(missing)}: add it to pjsip.conf as docs/operations/trunks.md "
            "shows, or correct the trunk with `ari-conf trunk set`"
        )
    if offline:
        raise CheckFailed(
            f"Asterisk can't reach the endpoint {', '.join(offline)}: check its contact, the provider, and the "
            "firewall; `asterisk -rx 'pjsip show contacts'` shows when it last answered"
        )
    if idle := [trunk.name for trunk in enabled if not trunk.prefixes and not trunk.hosts]:
        raise Doubtful(
            f"trunk {', '.join(idle)} has neither prefixes nor hosts, so that nothing is dialed: `ari-conf trunk set`"
        )
    if not dialing:
        raise Doubtful(
            "no account may dial: `ari-conf account set ACCOUNT --dial-prefixes … --dial-caller-ids …`, or remove the "
            "trunks"
        )
    return f"{', '.join(trunk.name for trunk in enabled)}; {len(dialing)} accounts may dial"


def _configured(settings: Settings) -> tuple[list[Trunk], list[str]]:
    """Return the trunks, and the accounts that may dial."""
    client = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        found = trunk_store.list_all(client, trunks.from_settings(settings.trunks))
        records = accounts.list_all(client)
    except TrunkError as error:
        raise CheckFailed(f"{error}: correct ARI_CONF_TRUNKS") from None
    except (redis.RedisError, OSError) as error:
        raise CheckFailed(f"could not be checked: Redis does not respond ({error})") from None
    finally:
        client.close()
    dialing = [record.auth_id for record in records if record.dial_prefixes or record.dial_special]
    return [one.trunk for one in found], dialing


def _endpoint_problems(settings: Settings, enabled: list[Trunk]) -> tuple[list[str], list[str]]:
    """Return the names of endpoints that Asterisk does not have, and of those that it can't reach.

    Asterisk calls an endpoint offline if it has no contact, or if each contact is unreachable (`qualify_frequency`)."""
    listed: list[dict[str, Any]] = asterisk.ask(settings, "/endpoints/PJSIP").json()
    states = {str(one["resource"]): str(one["state"]) for one in listed}
    names = dict.fromkeys(trunk.endpoint for trunk in enabled)
    missing = [name for name in names if name not in states]
    return missing, [name for name in names if states.get(name) == "offline"]

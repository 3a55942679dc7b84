import asyncio
import gc

from ari_conf import store, takeover
from ari_conf.core.call import Call
from ari_conf.core.events import CallArrived
from ari_conf.store import Step, Store
from ari_conf.written import encoded
from tests.redis import RedisServer

MANY = 3000


def calls() -> dict[str, bytes]:
    arrived = [CallArrived(f"channel{n}", f"u{n}", "request", "MA1", "+4930", "100") for n in range(MANY)]
    return {event.call_uuid: encoded(Call.arrived(event, 1)[0]) for event in arrived}


async def test_what_is_too_much_for_one_answer_is_loaded_all_the_same(redis_server: RedisServer):
    client = store.connect(redis_server.url)
    kept, state = Store(client, "one"), calls()
    await kept.write([Step(1, dict(state))])
    assert await kept.load() == state
    await client.aclose()


async def test_others_have_their_turn_while_much_is_read():
    """A process that does not renew its lease in time loses it."""
    turns = 0

    async def another() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    waiting = asyncio.create_task(another())
    state = calls()
    found = await takeover.restored_in_parts(state)
    waiting.cancel()
    assert turns >= MANY // takeover.RESTORED_AT_ONCE - 1
    assert found == takeover.restored(state)
    assert len(found[0]) == MANY
    assert gc.isenabled()

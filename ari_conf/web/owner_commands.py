"""Commands to the owner of a conference or call: the server that controls its Asterisk."""

from __future__ import annotations

from ari_conf.core.commands import CallCommand, ForAccount, ForCall, ForConference
from ari_conf.web import call_queries
from ari_conf.web.api_result import ApiResult
from ari_conf.web.auth import ApiClient
from ari_conf.web.errors import unavailable


async def send(
    client: ApiClient, server: str, addressed: ForConference | ForCall | ForAccount, command_id: str, *, to: str
) -> ApiResult:
    """Send a command, and return the reply. Raises ApiError 503: the command was not carried out, and never will be.

    `to`: the conference or call, for the error."""
    deadline_s = client.resources.settings.command_deadline
    reply = await client.resources.command_client.send(server, addressed, command_id, deadline_s)
    if reply is None:
        raise unavailable(f"the {to}'s Asterisk did not answer in time: try again")
    if reply.status == 503:
        raise unavailable(str(dict(reply.body)["error"]))
    return ApiResult(reply.status, dict(reply.body))


async def send_to_call(client: ApiClient, call_uuid: str, command: CallCommand) -> ApiResult:
    """Send a command to the owner of the call, and return its reply. Raises ApiError 404 or 503."""
    server = await call_queries.get_owner(client.resources.redis, client.auth_id, call_uuid)
    addressed = ForCall(client.auth_id, call_uuid, command)
    return await send(client, server, addressed, client.api_id, to="call")

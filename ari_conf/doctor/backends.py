"""Checks of Redis, Celery's broker and S3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import redis
from botocore.exceptions import NoCredentialsError  # type: ignore[import-untyped]

from ari_conf.common import lua, process_identity, redis_url, state_version
from ari_conf.common.redis_client import connect_in_threads, explain_error, explain_to_user
from ari_conf.common.redis_keys import CELERYS_PREFIX, PREFIX
from ari_conf.doctor import asterisk
from ari_conf.doctor.check import DEADLINE, CheckFailed, Doubtful
from ari_conf.errors import RecordingFailed, StateVersionRefused
from ari_conf.ownership import asterisk_identity, lease, owner_mark
from ari_conf.recordings.bucket import DENIED, FOLDER, Bucket, code_of
from ari_conf.settings import Settings

OF_THE_BUCKET = {"s3_bucket", "s3_endpoint", "s3_access_key", "s3_secret_key"}
NO_BUCKET = (
    "none is configured, so recordings wait in Asterisk's folder: set ARI_CONF_S3_BUCKET, ARI_CONF_S3_ACCESS_KEY and "
    "ARI_CONF_S3_SECRET_KEY (docs/operations/object-storage.md)"
)
_WRITE_TRIAL = lua.load("ari_conf.doctor.scripts.write_trial")


def redis_server(settings: Settings) -> str:
    client = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        _check_permissions(client)
        version = client.info("server")["redis_version"]
        found = client.config_get("appendonly", "maxmemory-policy", "maxmemory")
    except redis.AuthenticationError:
        raise CheckFailed("Redis rejects the password: correct it in ARI_CONF_REDIS_URL") from None
    except redis.ResponseError as error:
        return (
            f"responds, but does not show its configuration ({error}): check that appendonly is yes and "
            "maxmemory-policy is noeviction"
        )
    except (redis.RedisError, OSError) as error:
        raise CheckFailed(explain_to_user(error, "Redis does not respond")) from None
    if found["maxmemory-policy"] != "noeviction":
        raise CheckFailed(
            f"Redis evicts keys when its memory is full (maxmemory-policy {found['maxmemory-policy']}), undelivered "
            "callbacks among them: set maxmemory-policy to noeviction"
        )
    if found["appendonly"] != "yes":
        raise CheckFailed("Redis loses what is newer than its last snapshot when it crashes: set appendonly to yes")
    return f"Redis {version}, appendonly, noeviction"


def _check_permissions(client: redis.Redis) -> None:
    """Check all that an ACL can forbid: keys, channels, scripts. Raises CheckFailed, RedisError."""
    for prefix in (PREFIX, CELERYS_PREFIX):
        name = f"{prefix}doctor-{uuid4()}"
        try:
            client.eval(_WRITE_TRIAL, 1, name)
            listening: Any = client.pubsub()  # type: ignore[no-untyped-call]
            listening.subscribe(name)
            listening.close()
            client.publish(name, "")
        except redis.exceptions.NoPermissionError as error:
            raise CheckFailed(f"{explain_error(error)} ({error})") from None


def stored_state(settings: Settings) -> str:
    """Check that this release reads the version of the state in Redis."""
    client = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        found = state_version.read(client)
    except StateVersionRefused as refused:
        raise CheckFailed(str(refused)) from None
    except (redis.RedisError, OSError) as error:
        raise CheckFailed(f"could not be checked: Redis does not respond ({error})") from None
    finally:
        client.close()
    return "no process has written state yet" if found is None else f"version {found}"


def owner(settings: Settings) -> str:
    """Check which `ari-conf serve` owns this Asterisk's calls, and which standbys could take over."""
    client = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        status = lease.read_status(client, name := asterisk.name(settings))
    except (redis.RedisError, OSError) as error:
        raise CheckFailed(f"could not be checked: Redis does not respond ({error})") from None
    finally:
        client.close()
    if not status.owner:
        _check_no_rival(settings, name, status)
        raise CheckFailed(f"no server owns the calls of {name}: start `ari-conf serve`")
    if status.age_ms > lease.LEASE_S * 1000:
        raise CheckFailed(
            f"{status.owner} owns the calls of {name}, and its last heartbeat was {status.age_ms / 1000:.0f} s ago: "
            "start `ari-conf serve`, which takes over"
        )
    _check_no_rival(settings, name, status)
    waiting = ", ".join(f"{one} stands by" for one in status.standbys) or "no server stands by"
    return f"{status.owner} owns the calls of {name}; {waiting}"


def _check_no_rival(settings: Settings, name: str, status: lease.LeaseStatus) -> None:
    """Check the owner's mark in Asterisk. Raises CheckFailed for an owner with another name or another Redis."""
    mark = asterisk.mark(settings)
    if mark is None:
        if status.owner and status.token and asterisk.is_reachable(settings):
            raise Doubtful(asterisk_identity.other_asterisk(status.owner, name))
        return
    if mark.fencing_token == status.token or process_identity.is_dead(mark.identity) or mark.realm == status.realm:
        return
    raise CheckFailed(owner_mark.describe_rival(mark, name))


def broker(settings: Settings) -> str:
    if settings.broker == settings.redis_url.get_secret_value():
        _ping(settings)
        return "the same Redis"
    client = connect_in_threads(settings.broker, socket_timeout=DEADLINE, socket_connect_timeout=DEADLINE)
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        raise CheckFailed(
            f"Celery's broker does not respond ({error}): start it, or correct ARI_CONF_BROKER_URL"
        ) from None
    finally:
        client.close()
    return redis_url.parse(settings.broker).without_secrets()


def _ping(settings: Settings) -> None:
    client = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        raise CheckFailed(f"it is the same Redis, which does not respond ({error})") from None
    finally:
        client.close()


def bucket(settings: Settings) -> str:
    """Check the operations of workers and `web` on the bucket, below FOLDER; the key needs no other permissions."""
    name, where = settings.s3_bucket, settings.s3_endpoint or "AWS"
    tested = Bucket(settings.model_copy(update={"s3_deadline": DEADLINE}))
    probe = f"{FOLDER}.probe/{uuid4()}"
    steps: tuple[tuple[str, Callable[[], object]], ...] = (
        ("s3:PutObject", lambda: tested.put_json(probe, {"a probe of": "ari-conf doctor"})),
        ("s3:GetObject", lambda: tested.size(probe)),
        ("s3:GetObject", lambda: tested.piece(probe, 0, 1)),
        ("s3:DeleteObject", lambda: tested.delete(probe)),
    )
    for permission, step in steps:
        try:
            step()
        except RecordingFailed as failure:
            if isinstance(failure.__cause__, NoCredentialsError) and not settings.model_fields_set & OF_THE_BUCKET:
                raise Doubtful(NO_BUCKET) from None
            raise CheckFailed(_describe_refusal(failure, permission, f"{name} at {where}", settings)) from None
    return f"{name} at {where}: a test object was written, read and deleted{_hint_about_unfinished_uploads(tested)}"


def _describe_refusal(failure: RecordingFailed, permission: str, where: str, settings: Settings) -> str:
    code = code_of(failure)
    if isinstance(failure.__cause__, NoCredentialsError):
        return "S3 needs an access key: set ARI_CONF_S3_ACCESS_KEY and ARI_CONF_S3_SECRET_KEY"
    if not code:
        return f"S3 does not respond as expected at {where} ({failure}): start it, or correct ARI_CONF_S3_ENDPOINT"
    if code in DENIED:
        of_kms = ", and the use of the KMS key" if settings.s3_encryption == "aws:kms" else ""
        return f"the bucket {where} denies access ({code}): allow the access key {permission} on {FOLDER}*{of_kms}"
    todo = {
        "NoSuchBucket": "create it, or correct ARI_CONF_S3_BUCKET",
        "InvalidAccessKeyId": "correct ARI_CONF_S3_ACCESS_KEY",
        "SignatureDoesNotMatch": "correct ARI_CONF_S3_SECRET_KEY",
    }.get(code, f"check the log of its server; the request needs {permission}")
    return f"the bucket {where} rejected a request ({code}): {todo}"


def _hint_about_unfinished_uploads(tested: Bucket) -> str:
    """Return a hint if the uploads of dead workers can't be found, which is optional; "" if they can."""
    try:
        tested.call("list_multipart_uploads", Prefix=FOLDER, MaxUploads=1)
    except RecordingFailed as failure:
        return (
            f"; unfinished uploads could not be listed ({code_of(failure) or failure}): allow the access key "
            "s3:ListBucketMultipartUploads and s3:AbortMultipartUpload, or add a rule to the bucket that deletes "
            "unfinished uploads (docs/operations/object-storage.md)"
        )
    return ""


def delivery(settings: Settings) -> str:
    """Check that listeners reach the target of a RecordUrl. On an https page, browsers play nothing over http."""
    if settings.record_delivery == "web":
        return f"`web` sends the recordings, under {settings.public_url}"
    endpoint = settings.s3_public_endpoint or settings.s3_endpoint
    if endpoint is None:
        return "RecordUrl leads to AWS"
    public, s3 = urlsplit(settings.public_url), urlsplit(endpoint)
    remedy = "set ARI_CONF_RECORD_DELIVERY=web, or ARI_CONF_S3_PUBLIC_ENDPOINT to an address that"
    if public.scheme == "https" and s3.scheme == "http":
        raise CheckFailed(f"RecordUrl leads to {endpoint}, which a page with TLS can't play: {remedy} has TLS")
    if _is_on_this_machine(s3.hostname) and not _is_on_this_machine(public.hostname):
        raise CheckFailed(f"RecordUrl leads to {endpoint}, which only this machine reaches: {remedy} listeners reach")
    return f"RecordUrl leads to {endpoint}"


def _is_on_this_machine(host: str | None) -> bool:
    return (host or "").startswith(("127.", "localhost", "::1"))

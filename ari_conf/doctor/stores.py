"""Redis, the broker, S3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import redis
from botocore.exceptions import NoCredentialsError  # type: ignore[import-untyped]

from ari_conf import holder, identity, lease, owner_mark, redis_url
from ari_conf.bucket import DENIED, FOLDER, Bucket, code_of
from ari_conf.doctor import asterisk
from ari_conf.doctor.found import DEADLINE, Doubtful, Wrong
from ari_conf.errors import RecordingFailed
from ari_conf.lanes import CELERYS_PREFIX, PREFIX
from ari_conf.redis_client import connect_in_threads, what_to_do, why
from ari_conf.settings import Settings


def redis_server(settings: Settings) -> str:
    client = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        _may_all_it_needs(client)
        version = client.info("server")["redis_version"]
        found = client.config_get("appendonly", "maxmemory-policy", "maxmemory")
    except redis.AuthenticationError:
        raise Wrong("Redis refuses the password: correct the one in ARI_CONF_REDIS_URL") from None
    except redis.ResponseError as error:
        return f"answers, but doesn't tell its configuration ({error}): see that appendonly is yes, nothing is evicted"
    except (redis.RedisError, OSError) as error:
        raise Wrong(what_to_do(error, "Redis does not answer")) from None
    if found["maxmemory-policy"] != "noeviction":
        raise Wrong(
            f"Redis throws keys out when its memory is full (maxmemory-policy {found['maxmemory-policy']}), "
            "callbacks among them: set it to noeviction"
        )
    if found["appendonly"] != "yes":
        raise Wrong("Redis forgets what is newer than its last snapshot when it crashes: set appendonly to yes")
    return f"Redis {version}, appendonly, noeviction"


def _may_all_it_needs(client: redis.Redis) -> None:
    """What an ACL can forbid: keys, channels, scripts. Raises Wrong, RedisError."""
    for prefix in (PREFIX, CELERYS_PREFIX):
        name = f"{prefix}doctor-{uuid4()}"
        try:
            client.eval("redis.call('SET', KEYS[1], 1) redis.call('DEL', KEYS[1])", 1, name)
            listening: Any = client.pubsub()  # type: ignore[no-untyped-call]
            listening.subscribe(name)
            listening.close()
            client.publish(name, "")
        except redis.exceptions.NoPermissionError as error:
            raise Wrong(f"{why(error)} ({error})") from None


def owner(settings: Settings) -> str:
    """Which `ari-conf serve` has this Asterisk's calls, and who would take them over."""
    client = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        found = lease.seen(client, name := asterisk.name(settings))
    except (redis.RedisError, OSError) as error:
        raise Wrong(f"not known, since Redis does not answer ({error})") from None
    finally:
        client.close()
    if not found.owner:
        _no_rival(settings, name, found)
        raise Wrong(f"nobody has the calls of {name}: start `ari-conf serve`")
    if found.age_ms > lease.LEASE_S * 1000:
        raise Wrong(
            f"{found.owner} has the calls of {name}, and was last heard of {found.age_ms / 1000:.0f} s ago: "
            "start `ari-conf serve`, which takes over"
        )
    _no_rival(settings, name, found)
    waiting = ", ".join(f"{one} stands by" for one in found.standbys) or "nobody stands by"
    return f"{found.owner} has the calls of {name}; {waiting}"


def _no_rival(settings: Settings, name: str, found: lease.Seen) -> None:
    """Asterisk knows its owner, too: that of another name, or of another Redis, is a rival of this one."""
    mark = asterisk.mark(settings)
    if mark is None:
        if found.owner and found.token and asterisk.reached(settings):
            raise Doubtful(identity.other_asterisk(found.owner, name))
        return
    if mark.token == found.token or holder.is_dead(mark.holder) or mark.realm == found.realm:
        return
    raise Wrong(owner_mark.rival(mark, name))


def broker(settings: Settings) -> str:
    if settings.broker == settings.redis_url.get_secret_value():
        _pinged(settings)
        return "the same Redis"
    client = connect_in_threads(settings.broker, socket_timeout=DEADLINE, socket_connect_timeout=DEADLINE)
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        raise Wrong(f"Celery's broker does not answer ({error}): start it, or correct ARI_CONF_BROKER_URL") from None
    finally:
        client.close()
    return redis_url.parse(settings.broker).shown()


def _pinged(settings: Settings) -> None:
    client = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        raise Wrong(f"it is the same Redis, which does not answer ({error})") from None
    finally:
        client.close()


def bucket(settings: Settings) -> str:
    """What workers and `web` do there, below the folder that recordings are in: nothing else need be allowed."""
    name, where = settings.s3_bucket, settings.s3_endpoint or "AWS"
    there = Bucket(settings.model_copy(update={"s3_deadline": DEADLINE}))
    probe = f"{FOLDER}.probe/{uuid4()}"
    steps: tuple[tuple[str, Callable[[], object]], ...] = (
        ("s3:PutObject", lambda: there.put_json(probe, {"a probe of": "ari-conf doctor"})),
        ("s3:GetObject", lambda: there.size(probe)),
        ("s3:GetObject", lambda: there.piece(probe, 0, 1)),
        ("s3:DeleteObject", lambda: there.delete(probe)),
    )
    for permission, step in steps:
        try:
            step()
        except RecordingFailed as failure:
            raise Wrong(_refused(failure, permission, f"{name} at {where}", settings)) from None
    return f"{name} at {where}: a probe was put, read and deleted{_what_stays(there)}"


def _refused(failure: RecordingFailed, permission: str, where: str, settings: Settings) -> str:
    code = code_of(failure)
    if isinstance(failure.__cause__, NoCredentialsError):
        return "there is no key for S3: set ARI_CONF_S3_ACCESS_KEY and ARI_CONF_S3_SECRET_KEY"
    if not code:
        return f"S3 does not answer as it should at {where} ({failure}): start it, or correct ARI_CONF_S3_ENDPOINT"
    if code in DENIED:
        of_kms = ", and the KMS key's use" if settings.s3_encryption == "aws:kms" else ""
        return f"the bucket {where} refuses ({code}): allow the key {permission} on {FOLDER}*{of_kms}"
    todo = {
        "NoSuchBucket": "make it, or correct ARI_CONF_S3_BUCKET",
        "InvalidAccessKeyId": "correct ARI_CONF_S3_ACCESS_KEY",
        "SignatureDoesNotMatch": "correct ARI_CONF_S3_SECRET_KEY",
    }.get(code, f"see what its server logs; it was asked for what {permission} allows")
    return f"the bucket {where} refuses ({code}): {todo}"


def _what_stays(there: Bucket) -> str:
    """Of uploads that a worker's death broke off. Not needed to work."""
    try:
        there.call("list_multipart_uploads", Prefix=FOLDER, MaxUploads=1)
    except RecordingFailed as failure:
        return (
            f"; uploads that are broken off can't be found there ({code_of(failure) or failure}): allow the key "
            "s3:ListBucketMultipartUploads and s3:AbortMultipartUpload, or give the bucket a rule that deletes them "
            "(docs/operations/s3.md)"
        )
    return ""


def delivery(settings: Settings) -> str:
    """Where a RecordUrl leads: browsers play nothing by http in a page that came by https."""
    if settings.record_delivery == "web":
        return f"`web` passes recordings on, under {settings.public_url}"
    endpoint = settings.s3_public_endpoint or settings.s3_endpoint
    if endpoint is None:
        return "RecordUrl leads to AWS"
    public, s3 = urlsplit(settings.public_url), urlsplit(endpoint)
    remedy = "set ARI_CONF_RECORD_DELIVERY=web, or ARI_CONF_S3_PUBLIC_ENDPOINT to an address that"
    if public.scheme == "https" and s3.scheme == "http":
        raise Wrong(f"RecordUrl leads to {endpoint}, which a page with TLS may not play: {remedy} has TLS")
    if _is_here(s3.hostname) and not _is_here(public.hostname):
        raise Wrong(f"RecordUrl leads to {endpoint}, which only this machine reaches: {remedy} listeners reach")
    return f"RecordUrl leads to {endpoint}"


def _is_here(host: str | None) -> bool:
    return (host or "").startswith(("127.", "localhost", "::1"))

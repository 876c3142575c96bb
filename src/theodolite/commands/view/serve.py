"""Serving of the surveys below a folder to a browser on this machine."""

from __future__ import annotations

import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

import uvicorn

from theodolite.commands.view.application import view_application
from theodolite.records.errors import BadInput

LOOPBACK = "127.0.0.1"
GRACE_S = 2


def serve(folder: Path, port: int, announce: Callable[[str], None], *, open_browser: bool) -> None:
    """Serves until a signal ends it, SIGINT as `KeyboardInterrupt`. `announce` is given the address as soon as it answers there.

    Port 0 is any that is free. Raises `BadInput` for what is no folder, and for a port that is taken.
    """
    with listening(port) as listener:
        bound = listener.getsockname()[1]
        address = f"http://{LOOPBACK}:{bound}/"
        config = uvicorn.Config(
            view_application(folder, bound),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        announce(address)
        if open_browser and has_display():
            threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()
        uvicorn.Server(config).run([listener])


def listening(port: int) -> socket.socket:
    """A socket that listens on the loopback interface only. Raises `BadInput`."""
    try:
        return socket.create_server((LOOPBACK, port))
    except (OSError, OverflowError) as error:
        raise BadInput(f"port {port} cannot be had ({error}); give another, or --port 0 for one that is free") from error


def has_display() -> bool:
    """Whether a browser can show a window to the user who started this."""
    if sys.platform in ("win32", "darwin"):
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))

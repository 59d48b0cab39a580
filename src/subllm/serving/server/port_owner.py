"""Who listens on a port, as far as this process may know."""

from __future__ import annotations

import http.client
import json

import psutil

_SECONDS = 1.0
_FIELDS = {"status", "version", "loaded"}  # of /health


def owner_of(host: str, port: int) -> str:
    """`a subllm server of another store (pid 7)`, `python3 (pid 7)`, `another program`."""
    process = _listener(port)
    pid = f" (pid {process.pid})" if process is not None else ""
    if _is_subllm(host, port):
        return f"a subllm server of another store{pid}"
    name = ""
    if process is not None:
        try:
            name = "".join(char for char in process.name() if char.isprintable())
        except psutil.Error:
            pid = ""
    return f"{name or 'another program'}{pid}"


def _listener(port: int) -> psutil.Process | None:
    """None where the system does not tell, as of other users' processes."""
    try:
        for connection in psutil.net_connections("tcp"):
            at_port = connection.laddr and connection.laddr.port == port
            if at_port and connection.status == psutil.CONN_LISTEN and connection.pid:
                return psutil.Process(connection.pid)
    except (psutil.Error, OSError):
        pass
    return None


def _is_subllm(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host.strip("[]"), port, timeout=_SECONDS)
    try:
        connection.request("GET", "/health")
        health = json.loads(connection.getresponse().read(100_000))
        return isinstance(health, dict) and health.keys() >= _FIELDS
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()

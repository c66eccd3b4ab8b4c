"""Local TCP ports: which are ours to take, and what to say when one is not."""

import socket

from sluice.runtime.faults import RuntimeFault

LOCAL = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of this machine's own address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCAL, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that nobody listens on (a moment later someone may)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOCAL, 0))
        return probe.getsockname()[1]


def busy(port: int, what: str, variable: str) -> RuntimeFault:
    """The sentence for a port that is taken."""
    return RuntimeFault(
        f"port {port}, wanted for {what}, is in use by another program; nothing was started. "
        f"Choose another one with {variable}, for example: {variable}={free_port()} make run"
    )

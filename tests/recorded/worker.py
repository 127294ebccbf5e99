"""A client in Python that asks what it is told to ask: one JSON object a line, in and out.

In: {"connect": [REQUESTS, EVENTS, HEARTBEATS]}, endpoints of a host, or {"ask": REQUEST, "patience": SECONDS}.
Out, for each line: {"reply": REPLY}, or {"reply": null} if there is none, or none came in time.

usage: worker.py plain|cgse
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import zmq

os.environ.setdefault("PROJECT", "REGISTRY")
os.environ.setdefault("SITE_ID", "TEST")
os.environ.setdefault("LOG_LEVEL", "CRITICAL")


class Plain:
    """A REQ socket of pyzmq."""

    def __init__(self, requests: str, _events: str, _heartbeats: str) -> None:
        self.socket = zmq.Context.instance().socket(zmq.REQ)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(requests)

    def ask(self, request: dict[str, Any], patience: float) -> dict[str, Any] | None:
        self.socket.send(json.dumps(request).encode())
        return json.loads(self.socket.recv()) if self.socket.poll(int(patience * 1000)) else None

    def close(self) -> None:
        self.socket.close()


class Cgse:
    """The registry client of cgse-core."""

    def __init__(self, requests: str, events: str, heartbeats: str) -> None:
        from egse.registry import MessageType
        from egse.registry.client import RegistryClient

        self.kind = MessageType.REQUEST_WITH_REPLY
        self.client = RegistryClient(requests, events, heartbeats)
        self.client.logger.disabled = True
        self.client.connect()
        # An event wakes it as if it were the reply; then it would wait without end for one that does not come.
        self.client.req_socket.setsockopt(zmq.RCVTIMEO, 3000)

    def ask(self, request: dict[str, Any], patience: float) -> dict[str, Any] | None:
        reply = self.client._send_request(self.kind, request, timeout=patience)
        # Its own complaints have no code.
        return reply if reply.get("success") or "code" in reply else None

    def close(self) -> None:
        self.client.disconnect()


def main() -> None:
    kind = {"plain": Plain, "cgse": Cgse}[sys.argv[1]]
    client: Plain | Cgse | None = None
    for line in sys.stdin:
        said = json.loads(line)
        if "connect" in said:
            if client:
                client.close()
            client = kind(*said["connect"])
        reply = client.ask(said["ask"], said["patience"]) if client and "ask" in said else None
        print(json.dumps({"reply": reply}), flush=True)


if __name__ == "__main__":
    main()

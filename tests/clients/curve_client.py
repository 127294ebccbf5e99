"""Clients with keys (CURVE) against a running host, as libzmq has them through pyzmq.

The working directory holds the certificates that `registry keygen` made: registry.key, and NAME.key_secret for camera,
stage, admin, mute and stranger; `clients` is what the host goes by. All but stranger are in there. mute may only
register, admin may do everything, the others may read and register. The host also listens in the directory `ipc`.

usage: curve_client.py REQUESTS EVENTS HEARTBEATS [--durable] [--control]
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from contextlib import contextmanager
from typing import Any, Iterator

import zmq
import zmq.auth
from zmq.utils.monitor import recv_monitor_message

from checks import Host, arguments, ask_parent, check, equal, run, wait_until
from plain import REPLY_MS, context, receive

SERVER_KEY = zmq.auth.load_certificate("registry.key")[0]
PATIENCE = 10.0


@contextmanager
def socket(kind: int, endpoint: str, name: str | None, server_key: bytes = SERVER_KEY) -> Iterator[zmq.Socket]:
    """A socket of the client with that name; of one without keys if there is none."""
    opened = context.socket(kind)
    try:
        opened.setsockopt(zmq.LINGER, 0)
        if name:
            opened.curve_publickey, opened.curve_secretkey = zmq.auth.load_certificate(f"{name}.key_secret")
            opened.curve_serverkey = server_key
        opened.connect(endpoint)
        yield opened
    finally:
        opened.close()


def ask(host: Host, name: str, **request: Any) -> dict[str, Any]:
    with socket(zmq.REQ, host.requests, name) as req:
        req.send(json.dumps(request).encode())
        return json.loads(receive(req, request)[0])


def info(service_id: str, service_type: str = "curve") -> dict[str, Any]:
    return {"id": service_id, "name": service_id, "host": "127.0.0.1", "port": 4000, "type": service_type}


def register(host: Host, name: str, service_id: str, **more: Any) -> dict[str, Any]:
    return ask(host, name, action="register", service_info={**info(service_id), **more}, ttl=60)


def failure(kind: int, endpoint: str, name: str | None, server_key: bytes = SERVER_KEY, plain: bool = False) -> str:
    """How the handshake of a client fails, as libzmq's monitor says it. It must fail, and nothing may be answered."""
    opened = context.socket(kind)
    monitor = opened.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | 0x7800)
    try:
        opened.setsockopt(zmq.LINGER, 0)
        if plain:
            opened.plain_username, opened.plain_password = b"admin", b"admin"
        if name:
            opened.curve_publickey, opened.curve_secretkey = zmq.auth.load_certificate(f"{name}.key_secret")
            opened.curve_serverkey = server_key
        opened.connect(endpoint)
        if kind == zmq.REQ:
            opened.send(b'{"action": "health"}')
        assert monitor.poll(PATIENCE * 1000), "nothing has become of the handshake"
        event = recv_monitor_message(monitor)["event"]
        if kind == zmq.REQ:
            assert not opened.poll(200), f"it is answered: {opened.recv_multipart()}"
        return zmq.Event(event).name
    finally:
        opened.disable_monitor()
        opened.close()


@check("an authorized client is served on all three sockets")
def served(host: Host) -> None:
    with socket(zmq.SUB, host.events, "stage") as sub, socket(zmq.DEALER, host.heartbeats, "camera") as beats:
        sub.setsockopt(zmq.SUBSCRIBE, b"register")
        # A subscription has no answer: register until an event comes.
        wait_until("an event", lambda: register(host, "camera", "served")["success"] and sub.poll(100), PATIENCE)
        topic, event = sub.recv_multipart()
        equal((topic, json.loads(event)["data"]["service_id"]), (b"register", "served"), "event")
        beats.send(b'{"service_id": "served"}')
        equal(json.loads(receive(beats, "a heartbeat")[0])["success"], True, "renewed")
        found = ask(host, "stage", action="discover", service_type="curve")
        equal(found["service"]["id"], "served", "discovered")


@check("the same over Unix sockets")
def served_over_ipc(host: Host) -> None:
    with socket(zmq.REQ, "ipc://ipc/requests", "camera") as req:
        req.send(b'{"action": "health"}')
        equal(json.loads(receive(req, "health")[0])["status"], "ok", "status")
    with socket(zmq.DEALER, "ipc://ipc/heartbeats", "camera") as beats:
        beats.send(b'{"service_id": "served"}')
        equal(json.loads(receive(beats, "a heartbeat")[0])["success"], True, "renewed")
    equal(failure(zmq.REQ, "ipc://ipc/requests", None), "HANDSHAKE_FAILED_PROTOCOL", "without keys")


@check("messages of any length go both ways, in any number of frames")
def lengths(host: Host) -> None:
    for length in [0, 1, 200, 255, 256, 5000, 300_000]:
        equal(register(host, "camera", "long", note="x" * length)["success"], True, f"registered with {length}")
        with socket(zmq.DEALER, host.requests, "camera") as dealer:
            dealer.send_multipart([b"", b"REQ", b'{"action": "get", "service_id": "long"}'])
            *envelope, body = receive(dealer, "get")
            equal(envelope, [b"", b"RESPONSE"], "envelope")
            equal(len(json.loads(body)["service"]["note"]), length, "length")


@check("many requests at once are answered in order")
def pipelined(host: Host) -> None:
    with socket(zmq.DEALER, host.requests, "camera") as dealer:
        for number in range(2000):
            dealer.send(json.dumps({"action": "health", "request_id": number}).encode())
        for number in range(2000):
            equal(json.loads(receive(dealer, "health")[0])["request_id"], number, "request_id")


@check("a service belongs to the key that registered it, however the client names itself")
def ownership(host: Host) -> None:
    equal(register(host, "camera", "mine")["success"], True, "registered")
    requests = [
        {"action": "renew", "service_id": "mine"},
        {"action": "register", "service_info": info("mine"), "ttl": 60},
        {"action": "deregister", "service_id": "mine"},
    ]
    for request in requests:
        equal(ask(host, "stage", **request)["code"], "forbidden", f"{request['action']} by another")
    with socket(zmq.DEALER, host.heartbeats, "stage") as dealer:
        dealer.send(b'{"service_id": "mine"}')
        equal(json.loads(receive(dealer, "a heartbeat")[0])["code"], "forbidden", "a heartbeat by another")
    equal(ask(host, "camera", action="renew", service_id="mine")["success"], True, "renewed by its owner")
    equal(ask(host, "admin", action="deregister", service_id="mine")["success"], True, "removed by an admin")


@check("whose a service is outlasts a restart", when=lambda host: host.durable and host.control)
def owner_after_restart(host: Host) -> None:
    equal(register(host, "camera", "lasting")["success"], True, "registered")
    ask_parent("stop")
    ask_parent("start")
    equal(ask(host, "stage", action="renew", service_id="lasting")["code"], "forbidden", "renewed by another")
    equal(ask(host, "camera", action="renew", service_id="lasting")["success"], True, "renewed by its owner")


@check("who may only register can neither read nor subscribe")
def mute(host: Host) -> None:
    equal(register(host, "mute", "mutes")["success"], True, "registered")
    for request in [{"action": "list"}, {"action": "info"}, {"action": "get", "service_id": "mutes"}]:
        equal(ask(host, "mute", **request)["code"], "forbidden", request["action"])
    equal(failure(zmq.SUB, host.events, "mute"), "HANDSHAKE_FAILED_AUTH", "subscribing")


@check("who is not authorized is refused, on every socket")
def strangers(host: Host) -> None:
    for kind, endpoint in [(zmq.REQ, host.requests), (zmq.REQ, host.heartbeats), (zmq.SUB, host.events)]:
        equal(failure(kind, endpoint, "stranger"), "HANDSHAKE_FAILED_AUTH", f"a stranger at {endpoint}")


@check("clients with no keys, a password, or another server's key get nowhere")
def mismatches(host: Host) -> None:
    equal(failure(zmq.REQ, host.requests, None), "HANDSHAKE_FAILED_PROTOCOL", "no keys")
    equal(failure(zmq.REQ, host.requests, None, plain=True), "HANDSHAKE_FAILED_PROTOCOL", "a password")
    other = zmq.auth.load_certificate("stage.key")[0]
    equal(failure(zmq.REQ, host.requests, "camera", other), "HANDSHAKE_FAILED_NO_DETAIL", "another server's key")
    equal(ask(host, "camera", action="health")["success"], True, "health")


@check("keys come and go without a restart, and whose key has gone is cut off")
def reload(host: Host) -> None:
    with socket(zmq.DEALER, host.requests, "stage") as dealer:
        dealer.send(b'{"action": "health"}')
        receive(dealer, "health")
        monitor = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        os.rename("clients/stage.key", "stage.away")
        events = set()
        for _ in range(2):
            assert monitor.poll(PATIENCE * 1000), "the client is still connected"
            events.add(recv_monitor_message(monitor)["event"])
        equal(events, {zmq.EVENT_DISCONNECTED, zmq.EVENT_HANDSHAKE_FAILED_AUTH}, "what has become of it")
        dealer.disable_monitor()
    os.rename("stage.away", "clients/stage.key")

    def is_back() -> bool:
        with socket(zmq.REQ, host.requests, "stage") as req:
            req.send(b'{"action": "health"}')
            return bool(req.poll(500))

    wait_until("the client is let in again", is_back, PATIENCE)
    shutil.copy("stranger.key", "clients/stranger.key")
    wait_until("the stranger is let in", lambda: failure_or_none(host) is None, PATIENCE)
    os.remove("clients/stranger.key")


def failure_or_none(host: Host) -> str | None:
    with socket(zmq.REQ, host.requests, "stranger") as req:
        req.send(b'{"action": "health"}')
        return None if req.poll(500) else "refused"


@check("only an admin stops the server", when=lambda host: host.terminate)
def terminate(host: Host) -> None:
    equal(ask(host, "camera", action="terminate")["code"], "forbidden", "by another")
    equal(ask(host, "admin", action="terminate")["status"], "terminating", "by an admin")


if __name__ == "__main__":
    sys.exit(run(arguments(__doc__)))

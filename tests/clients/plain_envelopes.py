"""Whatever stands before the empty delimiter is an envelope, and comes back as it went: REQ sockets that number their
requests, and requests that come through libzmq proxies."""

from __future__ import annotations

import json
import threading
import uuid
from contextlib import ExitStack, contextmanager
from typing import Iterator

import zmq

from checks import Host, check, equal
from plain import HEALTH, REPLY_MS, ask_frames, context, encode, info, is_healthy, is_refused, receive, register, socket


@contextmanager
def proxy(endpoint: str, deep: int = 1) -> Iterator[str]:
    """So many `zmq.proxy` in a row before an endpoint: the endpoint of the first."""
    with ExitStack() as stack:
        for _ in range(deep):
            control = f"inproc://{uuid.uuid4()}"
            ends = [context.socket(kind) for kind in (zmq.ROUTER, zmq.DEALER, zmq.PAIR, zmq.PAIR)]
            front, back, stop, stopped = ends
            for end in ends:
                end.setsockopt(zmq.LINGER, 0)
            port = front.bind_to_random_port("tcp://127.0.0.1")
            back.connect(endpoint)
            stopped.bind(control)
            stop.connect(control)
            thread = threading.Thread(target=zmq.proxy_steerable, args=(front, back, None, stopped), daemon=True)
            thread.start()
            # Sockets may be closed only when the thread that uses them has ended.
            stack.callback(lambda ends=ends: [end.close() for end in ends])
            stack.callback(thread.join, 5)
            stack.callback(stop.send, b"TERMINATE")
            endpoint = f"tcp://127.0.0.1:{port}"
        yield endpoint


def renew(host: Host) -> bytes:
    return encode({"action": "renew", "service_id": register(host, info())})


def is_success(reply: bytes, what: str) -> None:
    assert json.loads(reply)["success"], f"{what} failed: {reply!r}"


@check("a REQ socket with REQ_CORRELATE and REQ_RELAXED is answered, on both ports")
def correlated(host: Host) -> None:
    for endpoint, request in [(host.requests, HEALTH), (host.heartbeats, renew(host))]:
        for options in [{"REQ_CORRELATE": 1}, {"REQ_CORRELATE": 1, "REQ_RELAXED": 1}]:
            with socket(zmq.REQ, endpoint, **options) as req:
                for head in [[], [b"REQ"]] * 3:
                    reply = ask_frames(req, [*head, request])
                    equal(reply[:-1], [b"RESPONSE"] * len(head), f"frames before the reply with {options}")
                    is_success(reply[-1], f"a request with {options}")


@check("a REQ socket with REQ_RELAXED that asks again gets the reply to what it asked last")
def relaxed(host: Host) -> None:
    with socket(zmq.REQ, host.requests, REQ_CORRELATE=1, REQ_RELAXED=1) as req:
        for number in range(20):
            req.send(encode({"action": "health", "request_id": number}))
        equal(json.loads(receive(req, "health")[0])["request_id"], 19, "request_id of the reply")


@check("requests come through one and through two libzmq proxies, on both ports, and replies go back the same way")
def proxied(host: Host) -> None:
    for deep in [1, 2]:
        for port, request in [(host.requests, HEALTH), (host.heartbeats, renew(host))]:
            with proxy(port, deep) as endpoint:
                with socket(zmq.REQ, endpoint) as req, socket(zmq.REQ, endpoint, REQ_CORRELATE=1, REQ_RELAXED=1) as other:
                    for _ in range(3):
                        for asking in [req, other]:
                            [reply] = ask_frames(asking, [request])
                            is_success(reply, f"a request through {deep} proxies")
                    kind, reply = ask_frames(req, [b"REQ", request])
                    equal(kind, b"RESPONSE", "first frame")
                    is_success(reply, f"a typed request through {deep} proxies")
                    [reply] = ask_frames(req, [b"{"])
                    is_refused(json.loads(reply), "Invalid JSON format", "invalid_json")
                with socket(zmq.DEALER, endpoint) as dealer:
                    kind, reply = ask_frames(dealer, [b"REQ", request])
                    equal(kind, b"RESPONSE", "first frame of a DEALER's reply")
                    is_success(reply, f"a DEALER's request through {deep} proxies")


@check("two clients behind one proxy each get their own replies")
def shared_proxy(host: Host) -> None:
    with proxy(host.requests) as endpoint, ExitStack() as stack:
        clients = [stack.enter_context(socket(zmq.REQ, endpoint)) for _ in range(8)]
        for turn in range(5):
            for number, client in enumerate(clients):
                client.send(encode({"action": "health", "request_id": f"{turn}-{number}"}))
            for number, client in enumerate(clients):
                reply = json.loads(receive(client, "health")[0])
                equal(reply["request_id"], f"{turn}-{number}", "request_id of the reply")


@check("a message that asks for no reply gets none in an envelope either")
def silent(host: Host) -> None:
    with socket(zmq.DEALER, host.requests) as dealer:
        for kind in [b"REQ_NO_REPLY", b"NOTIF", b"HB"]:
            dealer.send_multipart([b"me", b"", kind, HEALTH])
        equal(ask_frames(dealer, [b"me", b"you", b"", HEALTH])[:-1], [b"me", b"you", b""], "the reply's envelope")
        assert not dealer.poll(REPLY_MS // 20), f"it was answered: {dealer.recv_multipart()}"


@check("what fits no layout is refused in the envelope that it came in")
def refused(host: Host) -> None:
    with socket(zmq.DEALER, host.requests) as dealer:
        for rest in [[b"BOGUS", HEALTH], [b"REQ"], [b"REQ", HEALTH, b"more"], [HEALTH, b"more", b"and more"]]:
            reply = ask_frames(dealer, [b"me", b"", *rest])
            equal(reply[:2], [b"me", b""], f"the envelope of the reply to {rest}")
            is_refused(json.loads(reply[-1]), "Invalid message frames", "invalid_request")
        is_healthy(ask_frames(dealer, [b"REQ", HEALTH])[-1])

"""Layouts of frames on the two ROUTER ports: those that are known, and all the others."""

from __future__ import annotations

import json
import time
import uuid

import zmq

from checks import Host, check, equal, wait_until
from plain import (
    HEALTH,
    ask,
    ask_frames,
    beat,
    encode,
    get,
    info,
    is_healthy,
    is_refused,
    new_type,
    receive,
    register,
    socket,
)

SILENT_TYPES = [b"REQ_NO_REPLY", b"NOTIF", b"HB"]


@check('request port: a REQ socket sends ["", json] and gets ["", json]')
def req_socket(host: Host) -> None:
    with socket(zmq.REQ, host.requests) as req:
        for _ in range(3):
            [reply] = ask_frames(req, [HEALTH])
            is_healthy(reply)


@check('request port: a DEALER sends ["REQ", json] and gets ["RESPONSE", json]')
def dealer_with_type(host: Host) -> None:
    with socket(zmq.DEALER, host.requests) as dealer:
        kind, reply = ask_frames(dealer, [b"REQ", HEALTH])
    equal(kind, b"RESPONSE", "first frame")
    is_healthy(reply)


@check('request port: ["", "REQ", json] gets ["", "RESPONSE", json]')
def req_socket_with_type(host: Host) -> None:
    with socket(zmq.REQ, host.requests) as req:
        kind, reply = ask_frames(req, [b"REQ", HEALTH])
    equal(kind, b"RESPONSE", "first frame")
    is_healthy(reply)
    with socket(zmq.DEALER, host.requests) as dealer:
        empty, kind, reply = ask_frames(dealer, [b"", b"REQ", HEALTH])
    equal([empty, kind], [b"", b"RESPONSE"], "frames before the reply")
    is_healthy(reply)


@check("request port: a bare DEALER sends [json] and gets [json]")
def bare_dealer(host: Host) -> None:
    with socket(zmq.DEALER, host.requests) as dealer:
        [reply] = ask_frames(dealer, [HEALTH])
        is_healthy(reply)
        empty, reply = ask_frames(dealer, [b"", HEALTH])
        equal(empty, b"", "first frame")
        is_healthy(reply)


@check("one DEALER may change its layout from request to request")
def mixed_layouts(host: Host) -> None:
    with socket(zmq.DEALER, host.requests) as dealer:
        for head in [[b"REQ"], [], [b"", b"REQ"], [b""]] * 3:
            answer = [frame.replace(b"REQ", b"RESPONSE") for frame in head]
            reply = ask_frames(dealer, [*head, HEALTH])
            equal(reply[:-1], answer, f"frames before the reply to {head}")
            is_healthy(reply[-1])


@check("REQ_NO_REPLY, NOTIF and HB are executed and never answered")
def silent_types(host: Host) -> None:
    for kind in SILENT_TYPES:
        for head in [[kind], [b"", kind]]:
            with socket(zmq.DEALER, host.requests) as dealer:
                service_id = new_type("silent")
                request = {"action": "register", "service_info": info(id=service_id)}
                dealer.send_multipart([*head, encode(request)])
                # Neither an error nor garbage is answered either.
                dealer.send_multipart([*head, encode({"action": "get", "service_id": "nobody"})])
                dealer.send_multipart([*head, b"{"])
                wait_until(f"{kind} registers", lambda: get(host, service_id))
                reply = json.loads(ask_frames(dealer, [b"REQ", encode({"action": "health", "request_id": 1})])[1])
                equal(reply.get("request_id"), 1, f"request_id of the first reply after {head}")


@check("a REQ socket that sends REQ_NO_REPLY gets nothing back")
def silent_req_socket(host: Host) -> None:
    service_id = new_type("silent")
    with socket(zmq.REQ, host.requests) as req:
        req.send_multipart([b"REQ_NO_REPLY", encode({"action": "register", "service_info": info(id=service_id)})])
        wait_until("it registers", lambda: get(host, service_id))
        assert not req.poll(200), f"REQ_NO_REPLY was answered: {req.recv_multipart()}"


@check("heartbeat port: [json] is a renew, whatever action says, and gets [json]")
def heartbeat_is_a_renew(host: Host) -> None:
    service_id = register(host, info())
    for action in [{"action": "renew"}, {}, {"action": "deregister"}, {"action": "nonsense"}, {"action": 5}]:
        reply = beat(host, {**action, "service_id": service_id})
        equal(reply, {"success": True, "message": "Service renewed successfully"}, f"reply to {action}")
    assert get(host, service_id), "a heartbeat that says deregister has deregistered the service"
    is_refused(beat(host, {"service_id": "nobody"}), "Service not found or could not be renewed", "not_found")
    is_refused(beat(host, {"action": "health"}), "Missing required field: service_id", "invalid_request")
    is_refused(beat(host, b"{"), "Invalid JSON format", "invalid_json")


@check("heartbeat port: takes every layout of the request port")
def heartbeat_layouts(host: Host) -> None:
    service_id = register(host, info())
    renew = encode({"action": "renew", "service_id": service_id})
    with socket(zmq.DEALER, host.heartbeats) as dealer:
        for head in [[b"REQ"], [], [b"", b"REQ"], [b""]]:
            answer = [frame.replace(b"REQ", b"RESPONSE") for frame in head]
            reply = ask_frames(dealer, [*head, renew])
            equal(reply[:-1], answer, f"frames before the reply to {head}")
            assert json.loads(reply[-1])["success"], f"renew with {head} failed: {reply}"
        for kind in SILENT_TYPES:
            dealer.send_multipart([kind, renew])
        reply = ask_frames(dealer, [encode({"service_id": service_id, "request_id": "last"})])
        equal(json.loads(reply[-1]).get("request_id"), "last", "request_id of the first reply after the silent types")
    with socket(zmq.REQ, host.heartbeats) as req:
        assert json.loads(ask_frames(req, [renew])[0])["success"], "renew from a REQ socket failed"


@check("the same identity on both ports gets each reply where it asked")
def same_identity(host: Host) -> None:
    service_id = register(host, info())
    identity = uuid.uuid4().bytes
    with (
        socket(zmq.DEALER, host.requests, IDENTITY=identity) as requests,
        socket(zmq.DEALER, host.heartbeats, IDENTITY=identity) as heartbeats,
    ):
        for _ in range(5):
            requests.send_multipart([b"REQ", HEALTH])
            heartbeats.send(encode({"service_id": service_id}))
            is_healthy(receive(requests, "health")[1])
            equal(json.loads(receive(heartbeats, "renew")[0]).get("message"), "Service renewed successfully")


GARBAGE_LAYOUTS = [
    [b""],
    [b"", b""],
    [b"", b"", b""],
    [b"REQ"],
    [b"REQ", b""],
    [b"", b"REQ"],
    [b"", b"REQ", b""],
    [b"BOGUS", HEALTH],
    [b"", b"BOGUS", HEALTH],
    [b"req", HEALTH],
    [b"RESPONSE", HEALTH],
    [HEALTH, HEALTH],
    [HEALTH, b"REQ"],
    [b"REQ", HEALTH, b"more"],
    [b"", HEALTH, b"more"],
    [b"", b"REQ", HEALTH, b"more"],
    [b"", b"", HEALTH],
    [b"\x00\xff\xfe", b"\xff" * 300],
    [b"x"] * 50,
    [b""] * 50,
]


@check("frames that fit no layout are answered with an error, and the next request is fine, on both ports")
def garbage_layouts(host: Host) -> None:
    service_id = register(host, info())
    fine = encode({"action": "renew", "service_id": service_id})
    for endpoint in [host.requests, host.heartbeats]:
        for frames in GARBAGE_LAYOUTS:
            shown = [frame[:20] for frame in frames[:4]]
            with socket(zmq.DEALER, endpoint) as dealer:
                reply = ask_frames(dealer, frames)
                equal(reply[0] == b"", frames[0] == b"" and len(frames) > 1, f"reply to {shown} begins empty")
                error = json.loads(reply[-1])
                equal(error.get("success"), False, f"success of the reply to {shown}")
                assert error.get("error") and error.get("code"), f"no error and code for {shown}: {error}"
                reply = ask_frames(dealer, [b"REQ", fine])
                assert json.loads(reply[-1])["success"], f"the request after {shown} failed: {reply}"
            with socket(zmq.REQ, endpoint) as req:
                assert ask_frames(req, frames), "unreachable: it has a reply or has failed"
                assert json.loads(ask_frames(req, [fine])[-1])["success"], f"the request after {shown} failed"


GARBAGE_JSON = [
    b"",
    b" ",
    b"{",
    b"}",
    b"nonsense",
    b'{"action": "health"',
    b'{"action": "health"} more',
    b'{"action": health}',
    b"{'action': 'health'}",
    b"\xff\xfe\x00",
    b'{"action": "\xff"}',
    b"\x00" * 64,
    b"[" * 100_000,
    b'{"a":' * 100_000,
]


@check("what is not JSON is refused with 'Invalid JSON format', in every layout and on both ports")
def garbage_json(host: Host) -> None:
    for endpoint in [host.requests, host.heartbeats]:
        with socket(zmq.DEALER, endpoint) as dealer:
            for head in [[b"REQ"], [], [b"", b"REQ"], [b""]]:
                for body in GARBAGE_JSON:
                    reply = ask_frames(dealer, [*head, body])
                    equal(len(reply), len(head) + 1, f"number of frames of the reply to {head} and {body[:20]}")
                    is_refused(json.loads(reply[-1]), "Invalid JSON format", "invalid_json")


@check("JSON that is no object is refused, and the next request is fine")
def no_object(host: Host) -> None:
    for endpoint in [host.requests, host.heartbeats]:
        with socket(zmq.REQ, endpoint) as req:
            for body in [b"[]", b"null", b"42", b"-1.5e300", b'"health"', b"true", b'[{"action": "health"}]']:
                reply = json.loads(ask_frames(req, [body])[0])
                equal(reply["success"], False, f"success for {body}")
                assert reply["code"] in ("invalid_json", "invalid_request"), f"code for {body}: {reply}"
    is_healthy(json.dumps(ask(host, HEALTH)).encode())


@check("every reply of a client that asks 200 times without waiting comes back")
def pipelined(host: Host) -> None:
    with socket(zmq.DEALER, host.requests) as dealer:
        for number in range(200):
            action = {"action": "list"} if number % 2 else {"action": "health"}
            dealer.send_multipart([b"REQ", encode({**action, "request_id": number})])
        numbers = {json.loads(receive(dealer, "200 requests")[1])["request_id"] for _ in range(200)}
    equal(numbers, set(range(200)), "the request_ids that came back")


@check("a client with ZMTP heartbeats on keeps its connection, and its requests are answered")
def zmtp_heartbeats(host: Host) -> None:
    with socket(
        zmq.DEALER, host.requests, HEARTBEAT_IVL=50, HEARTBEAT_TIMEOUT=1000, HEARTBEAT_TTL=2000
    ) as dealer, dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
        for _ in range(10):
            is_healthy(ask_frames(dealer, [b"REQ", HEALTH])[-1])
            assert not monitor.poll(150), "the client was disconnected"
        dealer.disable_monitor()


@check("200 clients that connect, ask and leave are served within 20 s")
def churn(host: Host) -> None:
    start = time.monotonic()
    for number in range(200):
        kind = [zmq.REQ, zmq.DEALER][number % 2]
        with socket(kind, host.requests) as client, socket(zmq.SUB, host.events, SUBSCRIBE=b""):
            is_healthy(ask_frames(client, [HEALTH])[-1])
    assert time.monotonic() - start < 20, f"took {time.monotonic() - start:.0f} s"


@check("a client that sends bad requests does not disturb another's answers")
def bad_neighbour(host: Host) -> None:
    kind = new_type("neighbour")
    service_id = register(host, info(kind))
    with socket(zmq.DEALER, host.requests) as bad, socket(zmq.DEALER, host.requests) as good:
        for number in range(100):
            bad.send_multipart([b"REQ", encode({"action": "register", "service_info": info(kind, port="x")})])
            bad.send_multipart(GARBAGE_LAYOUTS[number % len(GARBAGE_LAYOUTS)])
            request = {"action": "discover", "service_type": kind, "request_id": number}
            reply = json.loads(ask_frames(good, [b"REQ", encode(request)])[1])
            equal([reply["service"]["id"], reply["request_id"]], [service_id, number], "reply")

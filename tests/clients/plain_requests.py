"""Every action: its reply, and its errors word for word. Also what a host does that was told otherwise."""

from __future__ import annotations

import json
import time
from typing import Any

import zmq

from checks import Host, check, equal, wait_until
from plain import (
    HEALTH,
    ask,
    ask_frames,
    beat,
    events_until,
    get,
    info,
    is_duplicate,
    is_healthy,
    is_refused,
    new_type,
    register,
    socket,
    subscriber,
)


@check("any: no action, an unknown action")
def action_errors(host: Host) -> None:
    for request in [{}, {"action": ""}, {"action": None}, {"service_id": "x"}]:
        is_refused(ask(host, request), "Missing required field: action", "invalid_request")
    is_refused(ask(host, {"action": "dance"}), "Unknown action: dance", "unknown_action")
    is_refused(ask(host, {"action": "Register"}), "Unknown action: Register", "unknown_action")
    is_refused(ask(host, {"action": "tänzle"}), "Unknown action: tänzle", "unknown_action")
    for wrong in [5, True, ["health"], {"action": "health"}]:
        equal(ask(host, {"action": wrong}).get("success"), False, f"success for action = {wrong!r}")


@check("an unknown extra field is ignored in a request")
def extra_request_field(host: Host) -> None:
    assert ask(host, {"action": "health", "colour": {"deep": [1, 2]}})["success"]


@check("request_id comes back unchanged: text, integers, floats, of any size")
def request_id(host: Host) -> None:
    tokens = ['"abc"', '""', '"ünï \\"q\\" \\u0041"', "0", "7", "-7", "1.5", "1.10", "1e3", "1E400", "-0.0"]
    tokens += ["12345678901234567890123456789012345678901234567890", "0.1000000000000000055511151231257827"]
    keep = {"parse_int": lambda text: ("number", text), "parse_float": lambda text: ("number", text)}
    for token in tokens:
        for action in ["health", "list", "get", "dance"]:
            with socket(zmq.REQ, host.requests) as req:
                [reply] = ask_frames(req, [f'{{"action": "{action}", "request_id": {token}}}'.encode()])
            equal(json.loads(reply, **keep).get("request_id"), json.loads(token, **keep), f"request_id {token}")
    equal(beat(host, {"service_id": "nobody", "request_id": 9}).get("request_id"), 9, "request_id of a heartbeat")
    assert "request_id" not in ask(host, {"action": "health"}), "a request_id that nobody sent"
    for other in [None, True, [1], {"a": 1}]:
        assert "success" in ask(host, {"action": "health", "request_id": other}), f"request_id {other!r}"


@check("register: replies service_id, message and generation")
def register_reply(host: Host) -> None:
    reply = ask(host, {"action": "register", "service_info": info("Reply")})
    equal(set(reply), {"success", "service_id", "message", "generation"}, "fields")
    equal(reply["message"], "Service registered successfully", "message")


@check("register: names the missing field, first things first")
def register_missing(host: Host) -> None:
    is_refused(ask(host, {"action": "register"}), "Missing required field: service_info", "invalid_request")
    given: dict[str, Any] = {}
    for field, value in [("name", "n"), ("host", "h"), ("port", 1)]:
        reply = ask(host, {"action": "register", "service_info": given})
        is_refused(reply, f"Missing required field in service_info: {field}", "invalid_request")
        given[field] = value
    assert ask(host, {"action": "register", "service_info": given})["success"]


@check("register: singleton with allow_duplicate_service_type is no policy")
def register_policy(host: Host) -> None:
    service_info = info("Policy", singleton=True, allow_duplicate_service_type=True)
    reply = ask(host, {"action": "register", "service_info": service_info})
    is_refused(reply, "invalid_service_type_policy")
    equal(reply.get("message"), "singleton and allow_duplicate_service_type cannot both be true.", "message")


@check("register: a singleton is refused while another live service matches its type")
def singleton(host: Host) -> None:
    kind = new_type("single")
    first = register(host, info(kind))
    alone = {"action": "register", "service_info": info(kind, singleton=True)}
    is_duplicate(ask(host, alone), kind, first)
    equal(len(ask(host, {"action": "list", "service_type": kind})["services"]), 1, "services after the refusal")
    register(host, info(kind, id=first, singleton=True))
    register(host, info(kind, allow_duplicate_service_type=True))
    second = register(host, info(kind))
    assert second != first, "two services got one id"

    tagged = new_type("single-tag")
    holder = register(host, info(tags=[tagged]))
    is_duplicate(ask(host, {"action": "register", "service_info": info(tagged, singleton=True)}), tagged, holder)


@check("register: a service past its ttl does not count as a duplicate, and is expired with its event")
def singleton_after_expiry(host: Host) -> None:
    kind = new_type("stale")
    with subscriber(host, b"") as events:
        old = register(host, info(kind), ttl=0.5)
        new = wait_until(
            "the type is free again",
            lambda: ask(host, {"action": "register", "service_info": info(kind, singleton=True)}).get("service_id"),
            seconds=10,
        )
        ours = [event for event in events_until(events, "register", new) if event["data"]["service_id"] in (old, new)]
    equal([event["type"] for event in ours], ["register", "expire", "register"], "events")
    assert get(host, old) is None, "the expired service is still there"


@check("deregister: replies, and its errors")
def deregister(host: Host) -> None:
    service_id = register(host, info())
    reply = ask(host, {"action": "deregister", "service_id": service_id})
    equal(reply, {"success": True, "message": "Service deregistered successfully"}, "reply")
    assert get(host, service_id) is None, "it is still there"
    text = "Service not found or could not be deregistered"
    is_refused(ask(host, {"action": "deregister", "service_id": service_id}), text, "deregistered")
    is_refused(ask(host, {"action": "deregister", "service_id": "nobody"}), text, "not_found")
    for request in [{}, {"service_id": None}, {"service_id": ""}]:
        is_refused(
            ask(host, {"action": "deregister", **request}), "Missing required field: service_id", "invalid_request"
        )


@check("renew: replies, and its errors")
def renew(host: Host) -> None:
    service_id = register(host, info())
    reply = ask(host, {"action": "renew", "service_id": service_id})
    equal(reply, {"success": True, "message": "Service renewed successfully"}, "reply")
    text = "Service not found or could not be renewed"
    is_refused(ask(host, {"action": "renew", "service_id": "nobody"}), text, "not_found")
    for request in [{}, {"service_id": None}, {"service_id": ""}]:
        is_refused(ask(host, {"action": "renew", **request}), "Missing required field: service_id", "invalid_request")


@check("get: replies, and its errors")
def get_errors(host: Host) -> None:
    service_id = register(host, info())
    reply = ask(host, {"action": "get", "service_id": service_id})
    equal(set(reply), {"success", "service"}, "fields")
    equal(reply["service"]["id"], service_id, "id")
    is_refused(ask(host, {"action": "get", "service_id": "nobody"}), "Service not found", "not_found")
    for request in [{}, {"service_id": None}, {"service_id": ""}]:
        is_refused(ask(host, {"action": "get", **request}), "Missing required field: service_id", "invalid_request")


@check("list: all services, or those of a type; absent, null and '' mean all")
def list_services(host: Host) -> None:
    kind = new_type("listed")
    ids = {register(host, info(kind)) for _ in range(3)} | {register(host, info(tags=[kind]))}
    other = register(host, info(new_type("other")))
    listed = ask(host, {"action": "list", "service_type": kind})
    equal({service["id"] for service in listed["services"]}, ids, f"ids of type {kind}")
    for request in [{}, {"service_type": None}, {"service_type": ""}]:
        everything = {service["id"] for service in ask(host, {"action": "list", **request})["services"]}
        assert ids | {other} <= everything, f"services are missing from list {request}"
    nobody = ask(host, {"action": "list", "service_type": new_type("nobody")})
    equal([nobody["success"], nobody["services"]], [True, []], "list of an unknown type")


@check("discover: one healthy service of the type, every one of them sooner or later")
def discover(host: Host) -> None:
    kind = new_type("found")
    ids = {register(host, info(kind)) for _ in range(3)}
    found = [ask(host, {"action": "discover", "service_type": kind}) for _ in range(60)]
    assert all(set(reply) == {"success", "service"} for reply in found), f"fields: {found[0]}"
    equal({reply["service"]["id"] for reply in found}, ids, "the services that 60 questions found")
    text = "No healthy service of type nobody-there found"
    is_refused(ask(host, {"action": "discover", "service_type": "nobody-there"}), text, "none_healthy")
    for request in [{}, {"service_type": None}, {"service_type": ""}]:
        is_refused(
            ask(host, {"action": "discover", **request}), "Missing required field: service_type", "invalid_request"
        )


@check("health: status ok and the time in whole seconds")
def health(host: Host) -> None:
    reply = ask(host, {"action": "health"})
    equal([reply["success"], reply["status"]], [True, "ok"], "reply")
    assert isinstance(reply["timestamp"], int) and abs(reply["timestamp"] - time.time()) <= 2, f"timestamp: {reply}"


@check("info: status, the three ports, the policy and the services", when=lambda host: True)
def server_info(host: Host) -> None:
    service_id = register(host, info(new_type("info")))
    reply = ask(host, {"action": "info"})
    assert reply["success"] and reply["status"] == "ok", f"reply: {reply}"
    for field, endpoint in [("req_port", host.requests), ("pub_port", host.events), ("hb_port", host.heartbeats)]:
        equal(reply[field], host.port(endpoint), field)
    equal(reply["enforce_unique_service_types"], host.unique, "enforce_unique_service_types")
    assert service_id in {service["id"] for service in reply["services"]}, "info does not list the service"


@check("terminate: refused unless the host allows it", when=lambda host: not host.terminate)
def terminate_refused(host: Host) -> None:
    reply = ask(host, {"action": "terminate"})
    equal([reply["success"], reply["code"]], [False, "forbidden"], "reply")
    is_healthy(json.dumps(ask(host, HEALTH)).encode())


@check("a host that enforces unique types refuses a second one, unless allowed", when=lambda host: host.unique)
def enforced_unique_types(host: Host) -> None:
    kind = new_type("unique")
    first = register(host, info(kind))
    request = {"action": "register", "service_info": info(kind)}
    is_duplicate(ask(host, request), kind, first)
    is_duplicate(ask(host, {"action": "register", "service_info": info(metadata={"type": kind})}), kind, first)
    register(host, info(kind, id=first, port=1))
    register(host, info(kind, allow_duplicate_service_type=True))
    register(host, info())
    register(host, info())


@check("terminate: the host says so and stops in good order", when=lambda host: host.terminate)
def terminate(host: Host) -> None:
    reply = ask(host, {"action": "terminate"})
    equal([reply["success"], reply["status"]], [True, "terminating"], "reply")
    assert abs(reply["timestamp"] - time.time()) <= 2, f"timestamp: {reply}"

    def is_gone() -> bool:
        with socket(zmq.REQ, host.requests) as req:
            req.send(HEALTH)
            return not req.poll(300)

    wait_until("it is gone", is_gone)

"""What can go wrong, as types: `RegistryError` is the root of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class RegistryError(Exception):
    """Anything that this library raises, but for `ValueError` and `TypeError` about arguments."""


class Unreachable(RegistryError):
    """No registry could be reached in time. The text says what each host did."""


class TimedOut(RegistryError, TimeoutError):
    """The registry was reached and did not answer in time. What was asked may have been done."""


class Closed(RegistryError):
    """The client, or the thing asked, has been closed, or belongs to the process that this one was forked from."""


class Protocol(RegistryError):
    """The registry's answer makes no sense."""


class Refused(RegistryError):
    """The registry said no. `code` is a stable word; each word known to the library has a class of its own."""

    code: str = ""
    repeated: bool = False
    """It had been asked before, over a connection that was lost before the answer: that may have been done."""

    def __init__(self, reply: Mapping[str, Any]) -> None:
        """Made from the reply."""
        self.reply: Mapping[str, Any] = reply
        self.code = str(reply.get("code") or type(self).code)
        self.error = str(reply.get("error") or self.code or "refused without a reason")
        message = reply.get("message")
        field = reply.get("field")
        self.message: str | None = message if isinstance(message, str) else None
        self.field: str | None = field if isinstance(field, str) else None
        text = self.error
        if self.code and self.code != self.error:
            text += f" [{self.code}]"
        if self.message:
            text += f": {self.message}"
        super().__init__(text)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied by its reply."""
        return (type(self), (dict(self.reply),))


class InvalidRequest(Refused):
    """A field is missing or has a value that it cannot have: `field` says which."""

    code = "invalid_request"


class UnknownAction(Refused):
    """This registry is older than the call."""

    code = "unknown_action"


class NotFound(Refused):
    """No service has that id."""

    code = "not_found"


class NoneHealthy(Refused):
    """No service of that kind is healthy."""

    code = "none_healthy"


class DuplicateServiceType(Refused):
    """The type must be unique, and another healthy service has it: `existing_service_id`."""

    code = "duplicate_service_type"

    @property
    def existing_service_id(self) -> str:
        """The service that has the type."""
        return str(self.reply.get("existing_service_id", ""))


class InvalidServiceTypePolicy(Refused):
    """`singleton` and `allow_duplicate_service_type` contradict each other."""

    code = "invalid_service_type_policy"


class Forbidden(Refused):
    """These keys may not do that."""

    code = "forbidden"


class Overloaded(Refused):
    """The registry has too much to do: nothing has been changed, try again later."""

    code = "overloaded"


class BackendUnavailable(Refused):
    """The registry's storage failed or did not answer in time: nothing has been changed, try again later."""

    code = "backend_unavailable"


class BackendRefused(Refused):
    """The registry's storage cannot store this service."""

    code = "backend_refused"


class Deregistered(Refused):
    """The service has been deregistered: by this program or by somebody else, on purpose."""

    code = "deregistered"


class Replaced(Refused):
    """The id has been registered again since: this generation is over."""

    code = "replaced"


class Compacted(Refused):
    """The registry does not know any more what came after that position: list again."""

    code = "compacted"


class Stale(Refused):
    """The registry cannot be as sure of its state as `max_stale` asks for."""

    code = "stale"


class Starting(Refused):
    """The registry has not loaded its services yet."""

    code = "starting"


class ConfigRefused(Refused):
    """The registry's configuration cannot be used, so nothing has been changed."""

    code = "config_refused"

    @property
    def problems(self) -> list[str]:
        """What is wrong with it."""
        problems = self.reply.get("problems")
        return [str(problem) for problem in problems] if isinstance(problems, list) else []


class QuotaExceeded(Refused):
    """The client has as many services as a quota of the registry allows it."""

    code = "quota_exceeded"


class TooManyRequests(Refused):
    """The client asks more often than a quota of the registry allows it."""

    code = "too_many_requests"

    @property
    def retry_after(self) -> float | None:
        """After how many seconds it may ask again."""
        seconds = self.reply.get("retry_after")
        return float(seconds) if isinstance(seconds, int | float) else None


_BY_CODE: dict[str, type[Refused]] = {
    kind.code: kind
    for kind in (
        InvalidRequest,
        UnknownAction,
        NotFound,
        NoneHealthy,
        DuplicateServiceType,
        InvalidServiceTypePolicy,
        Forbidden,
        Overloaded,
        BackendUnavailable,
        BackendRefused,
        Deregistered,
        Replaced,
        Compacted,
        Stale,
        Starting,
        ConfigRefused,
        QuotaExceeded,
        TooManyRequests,
    )
}

LATER = (Overloaded, BackendUnavailable, Starting, TooManyRequests)
"""Refusals that say nothing about what was asked: the same may be done a moment later."""


def refusal(reply: Mapping[str, Any]) -> Refused:
    """The error that a reply without success is."""
    code = reply.get("code")
    return _BY_CODE.get(code if isinstance(code, str) else "", Refused)(reply)

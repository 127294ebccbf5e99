"""The heartbeats of all services of one client: those that are due at about the same time go in one message."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .connector import Connector
from .errors import LATER, Protocol, Refused, RegistryError, refusal
from .values import Json

_GATHER_FOR = 0.01
"""So many seconds the others are waited for."""
_TOGETHER = 1000
"""So many a registry takes in one message."""
_ID_LENGTH = 64 << 10
"""So long the ids in a message may be together: well below what any registry takes."""


@dataclass(eq=False)
class _Beat:
    named: Mapping[str, Any]
    timeout: float
    done: asyncio.Future[None]

    @property
    def id(self) -> str:
        return str(self.named["service_id"])


class Heartbeats:
    """What is due, and the call to those who will be due soon."""

    def __init__(self, connector: Connector) -> None:
        """Belongs to a client."""
        self.calls = 0
        """How many messages have been put together: who waits for its turn is woken, and can go along."""
        self._connector = connector
        self._due: list[_Beat] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def renew(self, named: Mapping[str, Any], timeout: float) -> None:
        """Renews a service, together with others of the client if it has some that are due."""
        if len(self._connector.kept) < 2:
            await self._renew_alone(named, timeout)
            return
        beat = _Beat(named, timeout, asyncio.get_running_loop().create_future())
        self._due.append(beat)
        if len(self._due) == 1:
            self.calls += 1
            self._connector.wake()
            self._begin(self._send())
        await beat.done

    async def _renew_alone(self, named: Mapping[str, Any], timeout: float) -> None:
        await self._connector.ask({"action": "renew", **named}, timeout=timeout)

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work, name="registry-client heartbeats")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self) -> None:
        await asyncio.sleep(_GATHER_FOR)
        due, self._due = self._due, []
        # Who has been closed meanwhile must not be renewed after it was deregistered.
        for beats in _messages([beat for beat in due if not beat.done.done()]):
            self._begin(self._send_together(beats) if len(beats) > 1 else self._send_one(beats[0]))

    async def _send_one(self, beat: _Beat) -> None:
        try:
            await self._renew_alone(beat.named, beat.timeout)
        except RegistryError as error:
            _tell(beat, error)
        else:
            _tell(beat, None)

    async def _send_together(self, beats: list[_Beat]) -> None:
        request = {"action": "renew", "services": [beat.named for beat in beats]}
        try:
            reply = await self._connector.ask(request, timeout=min(beat.timeout for beat in beats))
            refused = _refusals(reply)
        except LATER as error:
            refused = {beat.id: error for beat in beats}
        except Refused:
            # An older registry, which knows no more than one in a message; or none is to be renewed, each for its own
            # reason.
            for beat in beats:
                self._begin(self._send_one(beat))
            return
        except RegistryError as error:
            refused = {beat.id: error for beat in beats}
        for beat in beats:
            _tell(beat, refused.get(beat.id))


def _messages(due: list[_Beat]) -> list[list[_Beat]]:
    """What fits into a message each, and in each an id once: that is how a registry names what it refuses."""
    messages: list[list[_Beat]] = []
    ids: set[str] = set()
    length = 0
    for beat in due:
        is_full = len(ids) >= _TOGETHER or length + len(beat.id) > _ID_LENGTH or beat.id in ids
        if is_full or not messages:
            messages.append([])
            ids, length = set(), 0
        messages[-1].append(beat)
        ids.add(beat.id)
        length += len(beat.id)
    return messages


def _refusals(reply: Json) -> dict[str, RegistryError]:
    """What was refused, by the ids."""
    failed = reply.get("failed")
    if not isinstance(failed, list) or not all(isinstance(one, dict) and "service_id" in one for one in failed):
        raise Protocol(f"many heartbeats are answered by {reply!r:.200}")
    return {str(one["service_id"]): refusal(one) for one in failed}


def _tell(beat: _Beat, error: RegistryError | None) -> None:
    if beat.done.done():
        return
    if error is None:
        beat.done.set_result(None)
    else:
        beat.done.set_exception(error)

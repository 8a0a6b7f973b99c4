"""One leased kernel and what its clients ask of it: what runs, and what becomes of it when the kernel dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from cellrun.errors import CellrunError, ConnectionFailed, KernelStartError
from cellrun.protocol.message import Message
from cellrun.providers.base import Lease, Provider, in_background
from cellrun.service.jupyter.audience import Audience
from cellrun.service.jupyter.connection import Connection
from cellrun.service.jupyter.pictures import PRELUDE, wants_pictures
from cellrun.service.jupyter.replay import says, weight
from cellrun.service.jupyter.requests import MOST_BYTES, Asked, Requests

_START: Final = 60.0
_PRELUDE_TIMEOUT: Final = 10.0
_HELD_BACK: Final = 100  # requests that wait for a kernel that is started anew
_DEATHS: Final = 3  # without an answer in between
_LEAVING: Final = 5.0  # that a cell has to end whose client has gone
_PATIENCE: Final = 10.0  # after an interrupt for taking too long
_log: Final = logging.getLogger("cellrun.service")
State = Literal["starting", "idle", "busy", "restarting", "dead"]


@dataclass(eq=False)
class ServedKernel:
    """`forget` is called once, when it is no longer there to be asked for."""

    id: str
    tenant: str
    name: str
    provider: Provider
    longest: float | None
    forget: Callable[[ServedKernel], None]
    last_look: Callable[[ServedKernel], Awaitable[None]]
    state: State = "starting"
    used: float = field(default_factory=time.monotonic)
    active: datetime = field(default_factory=lambda: datetime.now(UTC))
    audience: Audience = field(default_factory=Audience)

    def __post_init__(self) -> None:
        self._lease: Lease | None = None
        self._asked = Requests()
        self._held: list[tuple[Connection, Message]] = []
        self._questions = 0
        self._ready = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._ending: asyncio.Task[None] | None = None
        self._pictures = False
        self._deaths = 0
        self._order = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        self._generation = 0  # of its process

    # -- its life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Raises CellrunError; then it is gone. Cancelled, too."""
        try:
            lease = await self.provider.acquire(_START)
        except BaseException:
            self.end("the kernel could not be started")
            raise
        self._lease = lease
        if self._ending is not None:
            in_background(lease.release())
            raise ConnectionFailed("the kernel was deleted while it started", retryable=False)
        await self._listen()

    async def _listen(self) -> None:
        """To a kernel that has just been started; it is given what was asked meanwhile."""
        assert self._lease is not None
        client = self._lease.client
        client.on_message = self._on_message
        client.on_gone = self._on_gone
        self._pictures = False
        self.state = "idle"
        self.used = time.monotonic()
        if not self.audience.connections:
            self.audience.left = self.used
        self._questions = 0
        generation = self._generation
        # Nobody overtakes those who wait.
        while self._held and generation == self._generation:
            connection, message = self._held.pop(0)
            try:
                await self._forward(connection, message)
            except ConnectionFailed as error:
                connection.refuse(message, str(error))
        if generation == self._generation:
            self._ready.set()

    @property
    def lease(self) -> Lease:
        """Raises ConnectionFailed while there is none."""
        if self._lease is None:
            raise ConnectionFailed("the kernel has not started yet")
        return self._lease

    @property
    def info(self) -> dict[str, Any]:
        return {} if self._lease is None else dict(self._lease.client.info)

    @property
    def executing(self) -> bool:
        return self._asked.executing

    def cpu_seconds(self) -> float | None:
        lease = self._lease  # asked in a thread, while it may be given up
        return None if lease is None else lease.cpu_seconds()

    def disk_bytes(self) -> int | None:
        lease = self._lease
        return None if lease is None else lease.disk_bytes()

    async def quiet(self) -> None:
        await self._quiet.wait()

    async def stop(self, reason: str) -> None:
        """Those connected are told."""
        self._tell_of_death(reason)
        self.end(reason)

    def end(self, reason: str = "the kernel was deleted") -> asyncio.Task[None]:
        """At once for whoever asks; what is left is done in the background."""
        if self._ending is None:
            self.state = "dead"
            self.forget(self)
            self._abort("aborted", "KernelEnded", reason)
            self.audience.tell("status", {"execution_state": "dead"})
            self.audience.dismiss(reason)
            self._held.clear()
            self._ending = in_background(self._release())
        return self._ending

    async def _release(self) -> None:
        self._ready.set()
        if self._lease is not None:
            self._lease.client.on_gone = None
            self._lease.client.on_message = None
            self._lease.client.occupied = False
            try:
                await self.last_look(self)
            finally:
                await self._lease.release()

    async def interrupt(self) -> None:
        """Raises CellrunError."""
        await self.lease.interrupt()
        await self.lease.client.wake()

    async def restart(self) -> None:
        """A fresh kernel; requests under way are answered as aborted. Raises CellrunError; then it is gone."""
        async with self._order:
            await self._renew()

    async def _renew(self) -> None:
        if self._ending is not None:
            raise ConnectionFailed("the kernel was deleted", retryable=False)
        self._abort("aborted", "KernelRestarted", "the kernel was restarted")
        self.state = "restarting"
        self._not_ready()
        lease = self.lease
        lease.client.on_gone = lease.client.on_message = None
        self.audience.tell("status", {"execution_state": "restarting"})
        try:
            await lease.restart(_START)
        except BaseException as error:
            if self._ending is not None:
                raise ConnectionFailed("the kernel was deleted while it was started anew", retryable=False) from None
            await self.stop(f"the kernel could not be started anew: {error}")
            if isinstance(error, CellrunError) or not isinstance(error, Exception):
                raise
            raise KernelStartError(f"the kernel could not be started anew: {error}") from error
        if self._ending is None:
            self.audience.tell("status", {"execution_state": "starting"})
            self.audience.tell("status", {"execution_state": "idle"})
            await self._listen()

    def _on_gone(self, reason: str) -> None:
        """The process has died."""
        self._deaths += 1
        self._tell_of_death(reason)
        if self._deaths >= _DEATHS:
            self.end(reason)
            return
        self.state = "restarting"
        self._not_ready()
        in_background(self._revive())

    def _not_ready(self) -> None:
        self._ready.clear()
        self._generation += 1

    async def _revive(self) -> None:
        async with self._order:
            if self._ready.is_set():  # somebody has restarted it meanwhile
                return
            with contextlib.suppress(CellrunError):  # whoever is connected was told
                await self._renew()

    def _tell_of_death(self, reason: str) -> None:
        _log.info("kernel %s: %s", self.id, reason, extra={"tenant": self.tenant})
        self._abort("error", "KernelDied", f"{reason}; its variables are gone")

    def _abort(self, status: str, name: str, reason: str) -> None:
        """An end for requests that will get no other."""
        for asked, message in self._asked.ends(status, name, reason):
            self._pass_on(message, asked)
        self._settle()

    # -- clients ---------------------------------------------------------------------------------

    def connect(self, connection: Connection) -> None:
        """One with the same `session_id` is closed, and what it was not given is given to this one. Where the kernel has ended meanwhile
        it is closed at once."""
        if self._ending is not None:
            connection.close("the kernel has ended")
            return
        other = self.audience.join(connection)
        if other is not None:
            other.close("the client has connected anew")
        if connection.returns:
            for asked in self._asked:
                if asked.connection.session == connection.session:
                    asked.connection = connection
            self._held = [
                (connection if one.session == connection.session else one, message) for one, message in self._held
            ]
        self.used = time.monotonic()

    def disconnect(self, connection: Connection) -> None:
        """Also where it is not connected any more."""
        if connection not in self.audience.connections:
            return
        self.used = time.monotonic()
        self.audience.leave(connection, waited_for=self._ending is None)
        if connection.returns:
            return
        # Nobody will read what it asked for, and it cannot be asked for again.
        self._held = [(one, message) for one, message in self._held if one is not connection]
        for asked in self._asked if connection.plain else ():
            asked.unwanted = asked.unwanted or (asked.connection is connection and asked.executes)
        running = self._asked.running
        if running is not None and running.unwanted:
            self._give_up(running)

    def _give_up(self, asked: Asked) -> None:
        """It runs, and nobody wants it."""

        async def stop() -> None:
            with contextlib.suppress(CellrunError, TimeoutError):
                await self.interrupt()
                async with asyncio.timeout(_LEAVING):
                    await asked.over.wait()

        if not asked.stopped:
            asked.stopped = True
            task = in_background(stop())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def request(self, connection: Connection, message: Message) -> None:
        """From a client to the kernel; it waits for one that is started anew. Raises ConnectionFailed."""
        self.used, self.active = time.monotonic(), datetime.now(UTC)
        await self._without_unwanted()
        if not self._ready.is_set():
            waiting = sum(weight(held) for _, held in self._held)
            if len(self._held) >= _HELD_BACK or (self._held and waiting + weight(message) > MOST_BYTES):
                raise ConnectionFailed("too many requests wait for the kernel to start")
            self._held.append((connection, message))
            return
        await self._forward(connection, message)

    async def _without_unwanted(self) -> None:
        """Until the cells of those who have gone have ended: the interrupt meant for one would end the next one too, and a kernel aborts
        what waits behind a cell that has failed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVING):
                while (first := self._asked.first) is not None and first.unwanted:
                    await first.over.wait()
        if self._leaving:
            await asyncio.wait(set(self._leaving))

    async def _forward(self, connection: Connection, message: Message) -> None:
        client, generation = self.lease.client, self._generation
        if (
            message.msg_type == "execute_request"
            and connection.plain
            and not self._pictures
            and client.language == "python"
            and wants_pictures(message.content.get("code"))
        ):
            self._pictures = True
            with contextlib.suppress(CellrunError):
                await client.ask("execute_request", PRELUDE, timeout=_PRELUDE_TIMEOUT)
            if generation != self._generation:
                self._held.append((connection, message))
                return
            if not connection.returns and connection not in self.audience.connections:
                return
        if message.channel == "stdin":
            if self._questions:  # else nobody has asked, and the kernel would keep it
                self._questions -= 1
                await client.channel.send(message)
            return
        asked = self._asked.add(message, connection)
        if asked.executes:
            self._quiet.clear()
            client.occupied = True
            self.state = "busy"
        try:
            await client.channel.send(message)
        except BaseException as error:
            answered = self._asked.drop(message.msg_id) is None  # with the kernel's end
            self._settle()
            if not answered or not isinstance(error, ConnectionFailed):
                raise

    # -- the kernel ------------------------------------------------------------------------------

    def _on_message(self, message: Message) -> Awaitable[None] | None:
        if self._lease is None or message.parent_header.get("session") == self._lease.client.session_id:
            return None  # an answer to a question of ours
        asked = self._asked.get(message.parent_id)
        if asked is not None:
            self._note(message)
        return self._pass_on(message, asked)

    def _note(self, message: Message) -> None:
        now = self.used = time.monotonic()
        self.active = datetime.now(UTC)
        if message.channel in ("shell", "control"):
            self._deaths = 0
        elif message.msg_type == "input_request":
            self._questions += 1
        if self._asked.note(message, now):
            self._settle()
        running = self._asked.running
        if running is not None and running.unwanted:
            self._give_up(running)

    def _settle(self) -> None:
        if not self.executing:
            self._quiet.set()
            if self.state == "busy":
                self.state = "idle"
            if self._lease is not None and self._lease.client.occupied:
                client = self._lease.client
                client.occupied = False
                if client.on_quiet is not None:
                    client.on_quiet()

    def _pass_on(self, message: Message, asked: Asked | None = None) -> Awaitable[None] | None:
        return self.audience.pass_on(message, asked or self._asked.get(message.parent_id))

    # -- time ------------------------------------------------------------------------------------

    async def look(self, now: float) -> None:
        """Ends what takes too long."""
        if self.longest is None:
            return
        for asked in self._asked:
            if not asked.executes or asked.started is None or now - asked.started < self.longest:
                continue
            if not asked.stopped:
                asked.stopped = True
                text = f"\n[cellrun: interrupted, since a cell may take {self.longest:g} s]\n"
                self._pass_on(says("stream", {"name": "stderr", "text": text}, asked.header), asked)
                with contextlib.suppress(CellrunError):
                    await self.interrupt()
            elif now - asked.started > self.longest + _PATIENCE:
                await self.lease.kill()

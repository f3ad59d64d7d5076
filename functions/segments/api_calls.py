"""Calls of the API are paced, suspended while the API does not answer, and retried at once if a retry can help."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any

from segments.circuit import Circuit
from segments.errors import NoAnswer, StopError, TooManyRequests, TryAtOnce
from segments.pace import Turn, Turns

# Runs a blocking function with its arguments without delaying the other messages, and returns its result.
InThread = Callable[..., Awaitable[Any]]


@dataclass(eq=False)
class Calls:
    """The calls of one action of the API."""

    turns: Turns  # the action's share of the account's request limit
    circuit: Circuit
    in_thread: InThread
    clock_seconds: Callable[[], float]
    measure: Callable[[str, float], None]  # receives TurnWait and ApiLatency in ms, ApiThrottled as a count

    async def make(
        self,
        function: Callable[..., Any],
        *arguments: object,
        seconds_left: Callable[[], float],
        message: Hashable = None,
    ) -> Any:
        """Call the API. If a retry can help, retry at once, once for each cause. Raises the errors of `function`.

        `function` makes one request. Its last argument, after `arguments`, is a function to call just before the
        request is sent. A call starts only if its turn comes within `seconds_left()`. The messages take turns.
        """
        causes: set[type[TryAtOnce]] = set()
        while True:
            try:
                return await self._attempt(function, *arguments, seconds_left=seconds_left, message=message)
            except TryAtOnce as error:
                if type(error) in causes:
                    raise
                causes.add(type(error))

    async def _attempt(
        self, function: Callable[..., Any], *arguments: object, seconds_left: Callable[[], float], message: Hashable
    ) -> Any:
        asked = self.clock_seconds()
        self.circuit.check()
        turn = await self.turns.take(seconds_left, message)
        try:
            self.circuit.enter()
            return await self._call(turn, function, *arguments, asked=asked)
        finally:
            turn.give_up()  # if no request was sent

    async def _call(self, turn: Turn, function: Callable[..., Any], *arguments: object, asked: float) -> Any:
        began = self.clock_seconds()
        self.measure("TurnWait", 1000 * (began - asked))
        answered = None  # unknown: the invocation ends before the answer arrives
        try:
            result = await self.in_thread(turn.spend, function, *arguments)
            answered = True
        except StopError as error:
            answered = not isinstance(error, NoAnswer)
            if isinstance(error, TooManyRequests):
                self.turns.slow_down()
                self.measure("ApiThrottled", 1)
            raise
        finally:
            # Without a request there is no answer: an unreadable secret says nothing about the API.
            if turn.was_sent:
                if answered is not None:
                    self.circuit.note(answered=answered)
                self.measure("ApiLatency", 1000 * (self.clock_seconds() - began))
        return result

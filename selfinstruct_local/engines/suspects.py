"""Find the requests that crash an engine among those in flight, abandon them, and record them for the next start.

When an engine dies, any request in flight may be the cause, or none. A single death abandons no request. All requests
in flight become suspects. Suspects run after all other requests, in groups of an eighth of the number that was in
flight. If a group crashes the engine, the next group is an eighth of that one, down to one request at a time. A
completion clears a suspect. A suspect is abandoned after `MAX_DEATHS_ALONE` deaths with nothing else in flight, once
the engine has completed another request since: with n requests in flight that takes at most log8(n) + 3 deaths. If no
other request is left after a death, a request that completed before is repeated as a probe and its completion is
dropped. In a start without a completion the engine itself may be the cause. There it takes `MAX_DEATHS_UNPROVEN`
deaths, more than one start allows by default, and no second request is abandoned before a completion.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from selfinstruct_local.engines.base import Completion, FinishReason, Request, RequestKey

LOG = logging.getLogger("selfinstruct_local.engines")

MAX_DEATHS_ALONE = 2
MAX_DEATHS_UNPROVEN = 5
NARROWING = 8
PROBE = RequestKey(-1, "probe", 0)


class Suspicion(NamedTuple):
    """Engine deaths that a request was involved in.

    Attributes:
        together: number of requests in flight at the last death, including this one.
        alone: number of deaths with only this request in flight.
    """

    together: int
    alone: int


class DeathRecord(Protocol):
    """Storage of suspicions across starts of a command."""

    def suspicions(self) -> Mapping[RequestKey, Suspicion]:
        """Return the suspicions of the requests without a completion."""

    def note_death(self, suspicions: Mapping[RequestKey, Suspicion], reason: str) -> None:
        """Store a death of the engine and the updated suspicions of the requests that were in flight."""


class Suspects:
    """The suspected requests of one engine, across all its deaths."""

    def __init__(self, record: DeathRecord | None = None) -> None:
        """Load the suspicions of earlier starts, if a record is given."""
        self._record = record
        self._known = dict(record.suspicions()) if record else {}
        self._reason = "died in earlier starts"
        self._works = True  # the engine has completed a request since its last death, or has not died
        self._probe: Request | None = None
        self._gave_up_unproven = False

    def __contains__(self, key: RequestKey) -> bool:
        return key in self._known

    def select(self, waiting: Sequence[Request], in_flight: Collection[RequestKey]) -> list[Request]:
        """Return the requests that may be sent now, or a probe.

        Args:
            waiting: requests not sent yet, in order.
            in_flight: keys of the requests in flight.
        """
        if any(key in self._known or key == PROBE for key in in_flight):
            return []
        unsuspected = [request for request in waiting if request.key not in self._known]
        if unsuspected or in_flight or not waiting:
            return unsuspected
        if not self._works and self._probe is not None:
            return [self._probe]
        # The least suspicious first.
        ranks = {
            request.key: (-self._known[request.key].together, self._known[request.key].alone) for request in waiting
        }
        first = min(ranks.values())
        group = [request for request in waiting if ranks[request.key] == first]
        return group[: max(1, -first[0] // NARROWING)]

    def answered(self, request: Request) -> None:
        """Clear a request that was completed."""
        self._known.pop(request.key, None)
        self._works = True
        self._gave_up_unproven = False
        if request.key != PROBE:
            self._probe = replace(request, key=PROBE, sampling=replace(request.sampling, max_tokens=1))

    def give_up(self, waiting: Collection[RequestKey]) -> list[Completion]:
        """Return the completions of abandoned requests; empty until the engine has completed another request.

        Args:
            waiting: keys of the requests not sent yet.
        """
        guilty = [key for key in waiting if key in self._known and self._known[key].alone >= MAX_DEATHS_ALONE]
        return [self._give_up(key) for key in guilty] if self._works else []

    def blame(self, in_flight: Sequence[RequestKey], reason: str) -> list[Completion]:
        """Record a death; return the completion of a request abandoned before the engine completed any other.

        Args:
            in_flight: keys of the requests that the engine was processing.
            reason: how the engine died.
        """
        self._works = False
        blamed = [key for key in in_flight if key != PROBE]
        if not blamed:
            return []
        self._reason = reason
        alone = len(blamed) == 1
        before = {key: self._known[key].alone if key in self._known else 0 for key in blamed}
        now = {key: Suspicion(len(blamed), deaths + alone) for key, deaths in before.items()}
        self._known |= now
        if self._record:
            self._record.note_death(now, reason)
        if self._probe or self._gave_up_unproven or now[blamed[0]].alone < MAX_DEATHS_UNPROVEN or not alone:
            return []
        self._gave_up_unproven = True
        return [self._give_up(blamed[0])]

    def _give_up(self, key: RequestKey) -> Completion:
        deaths = self._known.pop(key).alone
        return given_up(key, f"the engine {self._reason}, {deaths} times with nothing else in flight")


def given_up(key: RequestKey, reason: str) -> Completion:
    """Return the completion of an abandoned request, and log the reason."""
    LOG.warning("request %s is given up: %s", "/".join(map(str, key)), reason)
    return Completion(key, "", FinishReason.ABORT, 0, 0, given_up=reason)

"""Requests that an engine dies of: found among those in flight, given up, and noted for the next start.

When an engine dies, any request in flight may be the cause, or none. Nothing is given up for one death. All of them
become suspects, which run after all other requests and in groups an eighth of the number that was in flight, and
again an eighth when a group dies, down to one at a time. A suspect that is answered is cleared. One is given up after
`MAX_DEATHS_ALONE` deaths with nothing else in flight, as soon as the engine has answered another request since: with
n in flight that takes at most log8(n) + 3 deaths. If no other request is left after a death, one that was answered
before is repeated as a probe, and its answer dropped. In a start that has no answer yet the engine itself may be at
fault. There it takes `MAX_DEATHS_UNPROVEN` deaths, more than one start has by default, and no second request is given
up before an answer.
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
    """What is known against a request.

    Attributes:
        together: requests in flight at the last death, this one included.
        alone: deaths with this request alone in flight.
    """

    together: int
    alone: int


class DeathRecord(Protocol):
    """Keeps suspicions from one start of a command to the next."""

    def suspicions(self) -> Mapping[RequestKey, Suspicion]:
        """Return what is known against the requests without a completion."""

    def note_death(self, suspicions: Mapping[RequestKey, Suspicion], reason: str) -> None:
        """Note a death of the engine, and what is known now against those that were in flight."""


class Suspects:
    """The suspects of one engine, over all its deaths."""

    def __init__(self, record: DeathRecord | None = None) -> None:
        """Takes what earlier starts noted, if there is a record."""
        self._record = record
        self._known = dict(record.suspicions()) if record else {}
        self._reason = "died in earlier starts"
        self._works = True  # it has answered since its last death, or has not died
        self._probe: Request | None = None
        self._gave_up_unproven = False

    def __contains__(self, key: RequestKey) -> bool:
        return key in self._known

    def select(self, waiting: Sequence[Request], in_flight: Collection[RequestKey]) -> list[Request]:
        """Return the requests that may be sent now, or a probe.

        Args:
            waiting: requests that were not sent, in order.
            in_flight: keys of those that were.
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
        """Note that a request was answered."""
        self._known.pop(request.key, None)
        self._works = True
        self._gave_up_unproven = False
        if request.key != PROBE:
            self._probe = replace(request, key=PROBE, sampling=replace(request.sampling, max_tokens=1))

    def give_up(self, waiting: Collection[RequestKey]) -> list[Completion]:
        """Return the completions of the requests that the engine dies of, after it has answered another one.

        Args:
            waiting: keys of the requests that were not sent.
        """
        guilty = [key for key in waiting if key in self._known and self._known[key].alone >= MAX_DEATHS_ALONE]
        return [self._give_up(key) for key in guilty] if self._works else []

    def blame(self, in_flight: Sequence[RequestKey], reason: str) -> list[Completion]:
        """Note a death; return the completion of the request that is given up though the engine answers no other.

        Args:
            in_flight: keys of the requests the engine worked on.
            reason: how it died.
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
    """Return the completion of a request that no engine can answer, and say so."""
    LOG.warning("request %s is given up: %s", "/".join(map(str, key)), reason)
    return Completion(key, "", FinishReason.ABORT, 0, 0, given_up=reason)

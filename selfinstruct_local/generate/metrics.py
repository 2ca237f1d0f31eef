"""Metrics of a session: time per part of the loop, engine utilization, and counts per stage."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from selfinstruct_local.engines.base import Completion, Request


@dataclass(slots=True)
class StageCounts:
    """Counts of one stage of a profile.

    Attributes:
        requests: number of received completions.
        prompt_tokens: tokens of their prompts.
        cached_tokens: prompt tokens found in the engine's prefix cache.
        completion_tokens: generated tokens.
    """

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(slots=True)
class RunMetrics:
    """Metrics of a session, collected between the engine and the loop.

    Attributes:
        capacity: maximum number of concurrent requests of the engine.
        seconds: seconds per part of the loop: `engine` (waiting for it), `prompts`, `store`, `decide`.
        stages: counts per stage.
    """

    capacity: int
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("engine", "prompts", "store", "decide"), 0.0)
    )
    stages: dict[str, StageCounts] = field(default_factory=dict)
    _in_flight: int = 0
    _busy_seconds: float = 0.0  # filled slots times seconds
    _began: float = field(default_factory=time.monotonic)
    _changed: float = field(default_factory=time.monotonic)
    _ended: float | None = None

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Add the duration of the `with` block to a part of the loop."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - began

    def watch(self, requests: Iterable[Request | None]) -> Iterator[Request | None]:
        """Yield the requests and count them as in flight; the time to create them counts as `prompts`, not `engine`."""
        source = iter(requests)
        while True:
            began = time.perf_counter()
            request = next(source, None)  # a scheduler never ends
            spent = time.perf_counter() - began
            self.seconds["prompts"] += spent
            self.seconds["engine"] -= spent  # this runs while the loop waits for the engine
            if request is not None:
                self._change(1)
            yield request

    def received(self, completions: Sequence[Completion]) -> None:
        """Count received completions."""
        self._change(-len(completions))
        for each in completions:
            counts = self.stages.setdefault(each.key.stage, StageCounts())
            counts.requests += 1
            counts.prompt_tokens += each.prompt_tokens
            counts.cached_tokens += each.cached_tokens or 0
            counts.completion_tokens += each.completion_tokens

    def stop(self) -> None:
        """Stop the clock at the end of the loop."""
        self._change(0)
        self._ended = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds from the creation of the metrics to `stop`, or to now."""
        return (self._ended or time.monotonic()) - self._began

    @property
    def requests(self) -> int:
        """Completions received in all stages."""
        return sum(each.requests for each in self.stages.values())

    @property
    def completion_tokens(self) -> int:
        """Tokens generated in all stages."""
        return sum(each.completion_tokens for each in self.stages.values())

    @property
    def idle_share(self) -> float:
        """Time-averaged fraction of the engine's slots without a request, in [0, 1]."""
        if self._ended is None:
            self._change(0)
        return 1.0 - self._busy_seconds / max(self.capacity * self.elapsed, 1e-9)

    def measured(self) -> dict[str, Any]:
        """Return all metrics as JSON values."""
        return {
            "seconds": {part: round(spent, 3) for part, spent in self.seconds.items()},
            "stages": {stage: asdict(counts) for stage, counts in self.stages.items()},
            "idle_share": round(self.idle_share, 4),
            "elapsed_seconds": round(self.elapsed, 3),
            "capacity": self.capacity,
        }

    def _change(self, by: int) -> None:
        now = time.monotonic()
        self._busy_seconds += min(self._in_flight, self.capacity) * (now - self._changed)
        self._changed = now
        self._in_flight += by

"""Sends a list of requests to an engine and returns the completions by key."""

from collections.abc import Callable, Sequence

from selfinstruct_local.engines.base import Completion, Engine, FinishReason, Request, RequestKey
from selfinstruct_local.errors import RunError

MAX_TRIES = 3  # per request that the engine aborts


def ask(
    engine: Engine, requests: Sequence[Request], keep_going: Callable[[], bool], advance: Callable[[int], None]
) -> dict[RequestKey, Completion]:
    """Return the completions of `requests`; fewer if `keep_going` returned False.

    Args:
        engine: the engine; it may still be loading.
        requests: the requests, each with a unique key.
        keep_going: called about once per second.
        advance: called with the number of new completions.

    Raises:
        UserFacingError: the engine could not start, or died and did not come back.
        RunError: the engine aborts a request repeatedly, or gives it up.
    """
    found: dict[RequestKey, Completion] = {}
    engine.wait_until_ready(keep_going)
    for _ in range(MAX_TRIES):
        missing = [request for request in requests if request.key not in found]
        if not missing or not keep_going():
            return found
        batches = engine.generate(missing)
        try:
            for batch in batches:
                for each in batch:
                    if each.given_up:
                        message = f"request {'/'.join(map(str, each.key))} has no answer: {each.given_up}"
                        raise RunError(message)
                whole = [each for each in batch if each.finish_reason is not FinishReason.ABORT]
                found.update({each.key: each for each in whole})
                advance(len(whole))
                if not keep_going():
                    return found
        finally:
            batches.close()
    if len(found) < len(requests):
        message = f"the engine aborted {len(requests) - len(found)} of {len(requests)} requests {MAX_TRIES} times"
        raise RunError(message)
    return found

"""How an engine takes requests from its caller: as many as it has room for, and no sooner."""

from collections.abc import Callable, Iterable, Iterator

from selfinstruct_local.engines.base import Request


class Intake:
    """The source of requests of one `Engine.generate`.

    Attributes:
        ended: whether the source has no more; None from it only means "none at the moment".
    """

    def __init__(self, requests: Iterable[Request | None]) -> None:
        self.ended = False
        self._source = iter(requests)

    def take(self, has_room: Callable[[], bool]) -> Iterator[Request]:
        """Requests while there is room, which is asked before each, and while the source has some."""
        while not self.ended and has_room():
            try:
                request = next(self._source)
            except StopIteration:
                self.ended = True
                return
            if request is None:
                return
            yield request

"""Pull requests from the caller of an engine: only when the engine has room for them."""

from collections.abc import Callable, Iterable, Iterator

from selfinstruct_local.engines.base import Request


class Intake:
    """The source of requests of one `Engine.generate`.

    Attributes:
        ended: whether the source is exhausted; None from the source only means "no request at the moment".
    """

    def __init__(self, requests: Iterable[Request | None]) -> None:
        self.ended = False
        self._source = iter(requests)

    def take(self, has_room: Callable[[], bool]) -> Iterator[Request]:
        """Yield requests while the source has some and `has_room`, called before each, returns True."""
        while not self.ended and has_room():
            try:
                request = next(self._source)
            except StopIteration:
                self.ended = True
                return
            if request is None:
                return
            yield request

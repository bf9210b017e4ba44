"""Connections whose request does not come: they are closed, or somebody would keep all there are."""

from asyncio import TimerHandle, Transport

from uvicorn import config
from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEADERS_S = 20.0  # for a request's headers to be there


class Patient(AutoHTTPProtocol):
    """Uvicorn's protocol, which waits for headers as long as they take."""

    _late: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take what came, and wait on unless it is a request."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._settle()
        super().connection_lost(exc)

    def _wait(self) -> None:
        """Begin to wait for headers, unless they are there or that has begun."""
        if self._asked:
            self._settle()
        elif self._late is None:
            self._late = self.loop.call_later(HEADERS_S, self._give_up)

    @property
    def _asked(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _settle(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if not self._asked and not self.transport.is_closing():
            self.transport.close()


def be_patient() -> None:
    """Let the servers that start from now on use it."""
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{Patient.__name__}"

"""What every origin of messages is: one abstract class."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator

from tradeloop.stream.consumer import Message

IDLE_SECONDS = 0.5
"""An origin that has nothing says so this often, so that whoever waits can stop."""


class Origin(ABC):
    """Gives messages in their order, from where it was read up to.

    Attributes
    ----------
    name
        What the journal calls it; without passwords.
    """

    name: str

    @abstractmethod
    def messages(self, after: str | None, stop: threading.Event) -> Iterator[Message | None]:
        """Yield the messages behind a position (None: all that there are), and None where nothing comes for a while.

        It ends where nothing more can come, or `stop` is set.

        Raises
        ------
        StoreError
            The origin cannot be reached, or was lost: asked again, it goes on.
        DataError
            It can never go on from that position.
        """

    def committed(self, position: str) -> None:
        """Hear that everything up to a position is on the disk."""
        del position

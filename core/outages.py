"""What happens to a crowd while the database does not answer, or takes no writes.

The first to ask wait seconds for their 503, a few at a time. Behind them a crowd would
wait for minutes. It promises an `Outage` that warns the crowd: it is on for half a
second after each request that has waited in vain. Nothing else needs you to read this.
"""

import selectors
import socket
import threading
import time

SECONDS = 0.5  # after that, the next ones try again
MAX_WAITING_COMMITS = 4


class Outage:
    """Whether somebody has just waited in vain."""

    def __init__(self) -> None:
        self.end = 0.0

    def begin(self) -> None:
        self.end = time.monotonic() + SECONDS

    def is_on(self) -> bool:
        return time.monotonic() < self.end

    def finish(self) -> None:
        self.end = 0


class WritingOutage(Outage):
    """The same for writers only.

    A COMMIT that waits for a standby goes on in PostgreSQL when its client has gone. If
    it were forgotten, each later one would leave another process there, until the
    server takes no connections. Cancelling it would be worse: PostgreSQL then shows
    everybody what no standby has. So its socket is kept until the server answers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.waiting_commits: list[socket.socket] = []

    def keep(self, descriptor: int) -> None:
        """Begin an outage, and keep a socket that the driver is about to close."""
        copy = socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM)
        with self.lock:
            self.waiting_commits.append(copy)
        self.begin()

    def is_on(self) -> bool:
        if silence.is_on() or super().is_on():
            return True
        return self.count_waiting_commits() >= MAX_WAITING_COMMITS

    def count_waiting_commits(self) -> int:
        """Count the COMMITs that have no answer yet."""
        if not self.waiting_commits:
            return 0
        with self.lock, selectors.DefaultSelector() as selector:
            for one in self.waiting_commits:
                selector.register(one, selectors.EVENT_READ)
            for key, _ in selector.select(timeout=0):
                answered = key.fileobj
                assert isinstance(answered, socket.socket)
                self.waiting_commits.remove(answered)
                answered.close()
            return len(self.waiting_commits)


silence = Outage()  # nobody gets an answer from PostgreSQL
writing = WritingOutage()
locked_file = Outage()  # another program keeps SQLite's file locked

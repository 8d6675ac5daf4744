"""Progress that can be asked."""

from migrate.runtime.progress import Silent


class Counting(Silent):
    """Counts what was sent and what was there."""

    skipped_bytes = sent_bytes = 0

    def skip(self, *, items: int = 0, size_bytes: int = 0) -> None:
        self.skipped_bytes += size_bytes

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        self.sent_bytes += size_bytes


class Notes(Silent):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)

"""What an operator can run into."""


class NotBuilt(Exception):
    """A native part is missing; the message says how to get it."""


class NoStatus(Exception):
    """The bridge could not be asked; the message says why and what to try."""


class Refused(Exception):
    """The bridge did not do what was asked; the message says why and what to try. `reason` is the
    word of its `{:error, {word, why}}`, where it gave one.
    """

    def __init__(self, why: str, *, reason: str | None = None) -> None:
        super().__init__(why)
        self.reason = reason


class NoRecording(Exception):
    """A recording could not begin, or cannot be replayed; the message says why."""

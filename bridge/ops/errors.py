"""What an operator can run into."""


class NotBuilt(Exception):
    """A native part is missing; the message says how to get it."""


class NoStatus(Exception):
    """The bridge could not be asked; the message says why and what to try."""


class Refused(Exception):
    """The bridge did not do what was asked; the message says why and what to try."""


class NoRecording(Exception):
    """A recording could not begin, or cannot be replayed; the message says why."""

"""Errors of ticket files."""


class TicketError(ValueError):
    """A `.ticket` file is damaged, forged, or of a version that this library does not read."""

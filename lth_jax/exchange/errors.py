"""Errors of exports and imports."""


class ExchangeError(ValueError):
    """A file cannot be read, or a network cannot be written in a format without loss."""

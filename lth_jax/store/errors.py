"""The exceptions of the store."""


class StoreError(Exception):
    """The store cannot be read or written: unwritable, full, held elsewhere, or another format."""


class CorruptError(StoreError):
    """Something in the store is not what was written: the message names the folder and the file."""


class LostProcessError(Exception):
    """Another process of the job ended or failed, so this one cannot continue."""

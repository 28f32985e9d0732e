"""The exceptions of the store."""


class StoreError(Exception):
    """The store cannot be read or written: permissions, a full disk, a lock, or another format."""


class CorruptError(StoreError):
    """Stored data differ from what was written; the message names the folder and the file."""


class LostProcessError(Exception):
    """Another process of the job ended or failed, so this one cannot continue."""

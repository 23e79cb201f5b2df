"""Downloads LaMP's official files: resumable, checked, always the same bytes."""

from lampbench.data.download._fetch import (
    LOCK_NAME,
    OFFICIAL_SOURCE,
    Fetched,
    RemoteFile,
    Setting,
    check_lock,
    fetch,
    remote_files,
)
from lampbench.data.download._sources import PATIENCE, Patience
from lampbench.data.download._transfer import Bar, Progress

__all__ = [
    "LOCK_NAME",
    "OFFICIAL_SOURCE",
    "PATIENCE",
    "Bar",
    "Fetched",
    "Patience",
    "Progress",
    "RemoteFile",
    "Setting",
    "check_lock",
    "fetch",
    "remote_files",
]

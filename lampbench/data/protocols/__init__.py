"""The protocols over files: your folder, LaMP's two settings, OPPU's users, and what narrows them down."""

from lampbench.data.protocols._layout import FolderProtocol, LampTime, LampUser, LayoutProtocol
from lampbench.data.protocols._narrowed import Cold, Oppu100Rebuilt, Powered
from lampbench.data.protocols._oppu import Oppu100
from lampbench.data.protocols._parts import FileProtocol, Parts

__all__ = [
    "Cold",
    "FileProtocol",
    "FolderProtocol",
    "LampTime",
    "LampUser",
    "LayoutProtocol",
    "Oppu100",
    "Oppu100Rebuilt",
    "Parts",
    "Powered",
]

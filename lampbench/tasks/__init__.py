"""The six LaMP tasks, one file each. They are registered as entry points, as third-party tasks are.

Called, ``lampbench.tasks()`` lists all that are installed.
"""

from __future__ import annotations

import sys
from types import ModuleType

from lampbench.core import tasks


class _Tasks(ModuleType):
    """This package, which can be called: its name is also that of a function of ``import lampbench``."""

    def __call__(self) -> dict[str, str]:
        """Installed tasks: name -> what it is."""
        return {name: tasks().load(name).about for name in tasks().names()}


sys.modules[__name__].__class__ = _Tasks

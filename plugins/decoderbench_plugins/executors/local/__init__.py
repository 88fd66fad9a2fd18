"""local: cells run side by side in long-lived worker processes of this machine. The default, except on Windows."""

import os

from decoderbench import hookimpl

if os.name == "posix":
    from .executor import Local

    @hookimpl
    def register_executors() -> list[type[Local]]:
        """Register the executor of this package."""
        return [Local]

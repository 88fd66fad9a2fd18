"""The built-in components of decoderbench, registered in the same way as those of any other plugin.

All modules of this package are found automatically: to add a component, add a file.
"""

import pkgutil
from collections.abc import Iterable

from decoderbench import hookimpl


@hookimpl
def plugin_modules() -> Iterable[str]:
    """Return every module below this package except the trackers, which are enabled with `-p`.

    A tracker sends data elsewhere, and each needs a library that is not installed by default.
    """
    walk = pkgutil.walk_packages(__path__, __name__ + ".")
    return [module.name for module in walk if not module.name.startswith(f"{__name__}.trackers")]

"""The components that decoderbench ships, registered just as a stranger's would be.

One walk of this package finds them: a new component is a new file, and no list is edited.
"""

import pkgutil
from collections.abc import Iterable

from decoderbench import hookimpl


@hookimpl
def plugin_modules() -> Iterable[str]:
    """Every module below this package but the trackers: whoever wants one names it with `-p`.

    A tracker sends what it sees elsewhere, and each needs a library that few have.
    """
    walk = pkgutil.walk_packages(__path__, __name__ + ".")
    return [module.name for module in walk if not module.name.startswith(f"{__name__}.trackers")]

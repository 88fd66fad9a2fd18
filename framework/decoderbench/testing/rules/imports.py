"""The rule for the import of a plugin, which has happened before a component can be checked."""

from collections.abc import Sequence

from decoderbench.testing.assertions import expect
from decoderbench.testing.checks import Rule
from decoderbench.testing.subjects.base import Subject


def rule_of_import(changes: Sequence[str]) -> Rule:
    """Return the rule for a plugin whose import and registration changed global state as `changes` says."""

    def import_changes_no_global_state(subject: Subject) -> None:
        """Importing the plugin and registering its components change no global state of the process."""
        expect(
            not changes,
            got="; ".join(changes),
            do="set nothing for the whole process: export variables in the shell, append to sys.path instead of "
            "inserting, keep switches of torch within the functions that need them",
        )

    return import_changes_no_global_state

"""The rules that a component can be registered, and that people can read what its options mean."""

from typing import Any

from decoderbench.errors import PluginError
from decoderbench.registry.registry import Components
from decoderbench.testing.assertions import ConformanceError, expect
from decoderbench.testing.subjects.base import Subject


def can_be_registered(subject: Subject) -> None:
    """The registry accepts the class, and each option has a default."""
    components: Components[Any] = Components(subject.kind)
    try:
        components.add(subject.cls, getattr(subject.cls, "__module__", "?"), "under check")
    except PluginError as error:
        raise ConformanceError(str(error), got=str(error), do="") from None
    if subject.kind == "metric":
        return
    for name, option in subject.cls.Config.model_fields.items():
        if subject.kind != "dataset" and name not in subject.options:  # a dataset may require the path of its images
            title = f"option {name!r} of {subject.title}"
            expect(
                not option.is_required(), got=f"{title} without a default", do="give it one, so that a name suffices"
            )
    assert subject.config is not None


def options_are_described(subject: Subject) -> None:
    """Each option has a docstring, which `decoderbench plugins` prints."""
    for name, option in subject.cls.Config.model_fields.items():
        expect(
            option.description is not None,
            got=f"option {name!r} of {subject.title} without a docstring",
            do="describe it in a string below it",
        )

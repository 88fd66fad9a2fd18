"""The rule that a component can be registered."""

from typing import Any

from decoderbench.errors import PluginError
from decoderbench.registry.registry import Components
from decoderbench.testing.assertions import ConformanceError, expect
from decoderbench.testing.subjects.base import Subject


def can_be_registered(subject: Subject) -> None:
    """The registry accepts the class, and each option has a default and a docstring."""
    components: Components[Any] = Components(subject.kind)
    try:
        components.add(subject.cls, getattr(subject.cls, "__module__", "?"), "under check")
    except PluginError as error:
        raise ConformanceError(str(error), got=str(error), do="") from None
    if subject.kind == "metric":
        return
    for name, option in subject.cls.Config.model_fields.items():
        title = f"option {name!r} of {subject.title}"
        if subject.kind != "dataset":  # a dataset may require the path of its images
            expect(
                not option.is_required(), got=f"{title} without a default", do="give it one, so that a name suffices"
            )
        expect(
            option.description is not None, got=f"{title} without a docstring", do="describe it in a string below it"
        )
    assert subject.config is not None

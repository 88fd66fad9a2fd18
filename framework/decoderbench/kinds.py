"""The kinds of components, listed once. No torch here."""

AXES = ("rectifier", "encoder", "bridge", "decoder")
"""The stages of a recognizer, which a grid combines, in the order of the data flow."""

KINDS = (*AXES, "dataset", "metric")
"""The components of experiments."""

REGISTERED = (*KINDS, "executor")
"""Everything that plugins can register: the hook of a kind is `register_<kind>s`."""

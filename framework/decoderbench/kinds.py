"""The kinds of components, listed once. No torch here."""

AXES = ("rectifier", "encoder", "bridge", "decoder")
"""The stages of a recognizer, which a grid combines, in the order of the data flow."""

VARIANT = (*AXES, "setting")
"""What distinguishes the rows of a table: the stages, and the setting under which a combination of them is trained."""

KINDS = (*AXES, "dataset", "metric")
"""The components of experiments."""

REGISTERED = (*KINDS, "executor")
"""Everything that plugins can register: the hook of a kind is `register_<kind>s`."""

"""The rules: one module per kind of component, and modules for rules that several kinds share."""

"""Subjects: a component class with options, and how the rules build and run it. One module per kind."""

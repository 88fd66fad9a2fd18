"""Packages from outside. Their tests run in an environment of their own: tests/integration/test_outside_package.py."""

collect_ignore_glob = ["*"]

"""Packages of strangers: their tests run where they are installed, in tests/integration/test_outside_package.py."""

collect_ignore_glob = ["*"]

"""Datasets are sources of labeled images."""

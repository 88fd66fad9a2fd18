"""Rectifiers map images to images that are easier to read."""

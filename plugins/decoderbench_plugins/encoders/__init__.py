"""Encoders map images to feature maps."""

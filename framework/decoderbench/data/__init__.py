"""Labeled images: reading, auditing, decoding, batching and augmenting them."""

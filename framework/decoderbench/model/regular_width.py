"""A width that the usual numbers of heads divide: shows whether a component fails only at other widths."""

REGULAR_WIDTH = 960
"""Divided by 1 to 6, 8, 10, 12, 15, 16, 32 and 64: the usual numbers of attention heads and of groups."""

PROJECT_MEMORY = (
    "the width D of the memory depends on the stages before and can be odd: project the memory to a width of your own "
    "first, as in nn.Linear(memory.dim, 256)"
)
PROJECT_FEATURES = (
    "the number of channels depends on the encoder and can be odd: project the features to a number of your own "
    "first, as in nn.Conv2d(features.channels, 256, kernel_size=1)"
)

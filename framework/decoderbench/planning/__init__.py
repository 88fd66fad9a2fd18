"""From an experiment to its cells, without training anything."""

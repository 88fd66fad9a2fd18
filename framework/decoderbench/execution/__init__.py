"""Running cells: one cell under its lock, and what another process needs for it."""

"""Files: written durably, locked, and checked against damage. No torch here."""

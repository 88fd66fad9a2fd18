"""What else is done with a folder of results: its state, its integrity, what can be deleted, merging. No torch here."""

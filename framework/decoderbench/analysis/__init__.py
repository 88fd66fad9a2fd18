"""What the records of an experiment say, as pandas frames. No torch here."""

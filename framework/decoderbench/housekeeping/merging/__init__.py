"""Results of several folders in one: read (`sources`), compared and put in order (`arrangement`), written (`merge`)."""

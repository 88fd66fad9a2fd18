"""Reading images with a trained recognizer: which one, from which file, and in which batches."""

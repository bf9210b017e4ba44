"""Data for training: what the corpus holds, how it is mixed, how it becomes batches."""

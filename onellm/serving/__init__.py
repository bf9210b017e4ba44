"""One loaded model shared by many visitors: queue, background answers, metrics."""

"""Small tools that know nothing of models or modalities: limits, paths, atomic writing, memory, progress."""

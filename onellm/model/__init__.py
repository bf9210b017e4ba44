"""The model: configuration, tokenizers, encoder, projection, LLM. Knows tensors and never a path to a user's file."""

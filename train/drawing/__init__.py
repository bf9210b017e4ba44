"""The model that draws: its VQ tokens, training and measurements."""

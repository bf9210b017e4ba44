"""Pictures, videos and sounds that an answer holds."""

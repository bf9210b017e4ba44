"""File formats that several modalities share."""

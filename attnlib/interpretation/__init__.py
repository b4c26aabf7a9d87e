"""What a map says, in words bound to numbers."""

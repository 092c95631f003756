"""From raw documents to aligned checkpoints (paper sections 2 and 3)."""

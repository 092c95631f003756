"""Self-contained HTML pages from run directories."""

"""Programs that try to get out of the sandbox, to use it up or to forge a verdict."""

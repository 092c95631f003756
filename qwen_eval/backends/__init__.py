"""One module per backend; base.py has the protocol and the registry."""

"""The command line: thin, and quick to say how it is used."""

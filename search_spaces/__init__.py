"""The built-in search spaces, registered exactly as a third party's."""

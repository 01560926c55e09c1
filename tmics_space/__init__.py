"""TMICS (video deraining) as a search space: its modules, data, metrics and task."""

"""Importers of other projects' genotypes for the built-in spaces, with one module for each format."""

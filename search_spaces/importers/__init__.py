"""Importers of genotypes that other projects wrote, for the built-in spaces."""

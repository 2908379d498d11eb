"""Equivalence reports as one HTML page that needs nothing else: to read, to print, to mail."""

from .page import save_html

__all__ = ["save_html"]

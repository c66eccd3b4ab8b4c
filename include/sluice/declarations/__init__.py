"""A source's YAML file, read into typed, frozen values."""

from sluice.declarations.load import DeclarationError, Declarations, Fault, load_file, load_folder
from sluice.declarations.model import Column, Mode, Source, Table

__all__ = ["Column", "DeclarationError", "Declarations", "Fault", "Mode", "Source", "Table", "load_file", "load_folder"]

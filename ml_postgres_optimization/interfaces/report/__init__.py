"""What a command found, for reading outside the terminal: pictures, and pages in one file each."""

from ml_postgres_optimization.interfaces.report.destinations import Destination, write_all
from ml_postgres_optimization.interfaces.report.page import LeftOut, Page, Picture, Section, render_page

__all__ = ["Destination", "LeftOut", "Page", "Picture", "Section", "render_page", "write_all"]

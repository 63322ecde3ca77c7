"""Workbench: jobs, and the work that is kept between sessions."""

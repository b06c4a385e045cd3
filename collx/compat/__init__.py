"""Doors for programs written for other libraries."""

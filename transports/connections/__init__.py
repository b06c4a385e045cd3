"""Connections between ranks on different hosts: by which addresses, who may make one, and how they are encrypted."""

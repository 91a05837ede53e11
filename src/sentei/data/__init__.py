"""Rows out of files, folders and the hub, checked, each with its place."""

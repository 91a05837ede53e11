"""A whole run: settings, prepared, trained, a folder that explains itself."""

"""A transformers model as a thing with a folder, units and inputs."""

"""The parts that a recipe is put together from. Each file is one axis; none knows another."""

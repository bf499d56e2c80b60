"""Expert solutions: who can write them, and how they are checked."""

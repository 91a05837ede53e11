"""One model on every engine that is installed, timed in turns: dense ones, and Sentei's own."""

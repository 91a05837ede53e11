"""What is learnt: options, head, features, predictions and metrics, one file a kind of task."""

"""Choice questions in every layout in use, read one way for training and for evaluation."""

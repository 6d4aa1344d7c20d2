"""Choice questions in every supported layout, read the same way for training and for evaluation."""

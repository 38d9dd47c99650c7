"""From cases to a trained model: configuration, cache, patches, the training loop, validation, comparison of runs."""

"""From cases to a trained model: configuration, cache, patches, the loop, validation, comparison of runs."""

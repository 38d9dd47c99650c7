"""From images to masks: preprocessing, windows, engines (PyTorch, OpenVINO), post-processing and prediction."""

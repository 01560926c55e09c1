"""Image classification as a task: data sets as their authors distribute them, augmentation, scores and prediction."""

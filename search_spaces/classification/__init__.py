"""Image classification as a task.

- `task`: batches, loss, scores
- `cifar`, `idx`, `fashion`, `folders`, `handwriting`: data sets in the form in which their authors distribute them
- `images`, `augment`, `predict`: images in memory, augmentation, prediction on files

Start with `task`.
"""

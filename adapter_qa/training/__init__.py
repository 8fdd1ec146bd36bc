"""Training: data of each task, the trainers, and the steps that the training scripts share."""

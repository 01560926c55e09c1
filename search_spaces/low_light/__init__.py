"""Enhancement of low-light pictures as a search space and a task: RUAS (Liu et al., CVPR 2021).

- `ruas`: two modules that cooperate, one estimates the light and one removes noise; each has one searched cell
- `reference_free`: what each module minimizes, without a picture in good light
- `data`: pictures from folders, or synthetic ones with known truth
- `task`: batches, losses, scores, prediction on files

Start with `ruas`.
"""

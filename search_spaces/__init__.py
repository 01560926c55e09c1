"""The built-in search spaces and the task `classification`, registered exactly as a third party's.

- `digits`, `darts`, `nas_bench_201`: search spaces
- `classification`: image classification as a task
- `importers`: genotypes in the formats of other projects

Imports public names of `nas`. Start with `digits`.
"""

"""The built-in search spaces and the tasks `classification` and `low-light`, registered exactly as a third party's.

- `digits`, `darts`, `nas_bench_201`, `nas_bench_macro`: search spaces
- `tables`: the results of every network of the last two
- `low_light`: RUAS, a space of two cooperating modules, and low-light enhancement as a task
- `classification`: image classification as a task
- `picture_files`: reading pictures, for both tasks
- `importers`: genotypes in the formats of other projects

Imports public names of `nas`. Start with `digits`.
"""

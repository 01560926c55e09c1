"""Reports of runs: progress, tables, plots, HTML pages.

`page` writes the report of a run and `comparison` that of several. `recorded` reads the folder of a run, `history` its
records. `curves`, `costs`, `decisions`, `evaluations`, `pareto`, `timeline`, `pictures`, `frame_viewer`, `plot` and
`plot_svg` make parts of the page. `benchmark_page` writes a comparison of searchers, `scoring_page` scores of files.
`live`, `progress` and `notebook_progress` show a running search, `tables` prints in the terminal, and `tensorboard`
writes for TensorBoard.

Only this package and the command line import rich. Imports everything but `nas.front` and `nas.cli`. Start with `page`.
"""

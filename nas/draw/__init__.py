"""Pictures of graphs: SVG, DOT, PNG, PDF, Mermaid, text.

`rendering` draws a space or genotype in any format. `picture` computes an SVG picture and `svg` writes it. Its layout
has three steps: `column_order` assigns nodes to columns and orders them, `layout` computes positions, `row_wrapping`
breaks a long layout into rows. `groups` looks up the groups of a graph, `style` and `theme` choose texts and colours,
`marks` marks differences, `notebook` shows genotypes in notebooks. `dot`, `mermaid` and `text` write the other formats.

The only package that imports graphviz. Imports `nas.graph` and below. Start with `rendering`.
"""

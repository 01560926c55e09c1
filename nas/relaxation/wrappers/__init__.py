"""Wrappers: what changes mixed operations, or the mixing weights of a forward pass; one a file.

`nas.space.wrapper` says what a wrapper is. To add one, write a file here and name its class under `nas.wrappers` in
`pyproject.toml`, or register it from anywhere by `@nas.register("wrapper", NAME)`. Start with `auxiliary_skip`.
"""

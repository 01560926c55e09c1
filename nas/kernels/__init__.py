"""Fast PyTorch functions and layers for any search space, and safe evaluation of modules.

Each function equals its PyTorch counterpart up to rounding, and all its derivatives can be differentiated again:
`convolution.conv2d`, `norm.batch_norm`, and the layers `depthwise.DepthwiseConv2d` and `activation.PReLU`.
`second_order.twice_differentiable` is a context for functions whose second derivatives PyTorch lacks, and `function`
calls autograd functions of one's own.
`memory_format.channels_last` is a context for faster convolutions on the CPU. `evaluation` runs models without side
effects, `finite` checks numbers, `freed_memory` keeps freed memory on the CPU, `device` moves batches, and `native`
builds and loads the optional C++ kernel. `torch_internals` holds every private name of PyTorch.

Imports `nas.errors` alone. Start with `convolution`.
"""

"""``lava.lib.dl.slayer.jitconfig``: settings of its CUDA compiler, which ours has no need of."""

TORCH_CUDA_ARCH_LIST: str | None = None
VERBOSE = False

"""``lava_bridge.slayer`` held against the real ``lava.lib.dl.slayer``, in one process."""

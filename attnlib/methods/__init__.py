"""Attribution methods: the registry, the propagation engine, one file a paper."""

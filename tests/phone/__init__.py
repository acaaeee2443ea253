"""A test phone: Debian's real adbd in namespaces of its own, with Android-like commands and files, running arm64 programs through qemu.

It proves deployment, faults and numbers, never a latency. Build it once with ``python -m tests.phone build`` (root, network, Debian);
without it, the tests that want a phone are skipped.
"""

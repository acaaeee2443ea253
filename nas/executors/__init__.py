"""EXECUTORS: name → execute(source, config, ...): takes jobs from a source until it is done, hands the outcomes back."""

from nas.executors import ray, serial

__all__ = ["EXECUTORS"]

EXECUTORS = {"ray": ray.execute, "serial": serial.execute}

"""The checks, in the order in which they are tried: one module for each chapter of the protocol."""

from gateway.conformance.bench import Bench
from gateway.conformance.checks import (
    cancels,
    evidence,
    frames,
    greeting,
    leases,
    leaving,
    refusals,
    restarts,
    standing,
    steps,
    streams,
)
from gateway.conformance.verdicts import Check

CHECKS: tuple[Check[Bench], ...] = (
    *greeting.CHECKS,
    *steps.CHECKS,
    *refusals.CHECKS,
    *cancels.CHECKS,
    *frames.CHECKS,
    *leases.CHECKS,
    *evidence.CHECKS,
    *streams.CHECKS,
    *restarts.CHECKS,
    *leaving.CHECKS,
    *standing.CHECKS,
)

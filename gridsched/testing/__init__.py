"""Ships to adapter authors and to our own tests: a clock moved by hand, faults by logical time, and a simulated site."""

from gridsched.testing.clock import ManualClock
from gridsched.testing.faults import Fault, FaultPlan
from gridsched.testing.invariants import check_invariants
from gridsched.testing.node import SimulatedNode
from gridsched.testing.simulation import Simulation

__all__ = ["Fault", "FaultPlan", "ManualClock", "SimulatedNode", "Simulation", "check_invariants"]

"""The node's meter between two threads: read where everything is decided, dated where it is sent."""

from collections.abc import Callable

from gridsched.core.errors import StorageFull
from gridsched.node.register import KeptRegister
from gridsched.node.state import Home
from gridsched.ports import Meter, Register
from gridsched.wire import MeterReport

__all__ = ["Metering"]


class Metering:
    """``register`` is the last reading; ``stuck`` says why it could not be kept, and then it is not reported either."""

    def __init__(self, home: Home, meter: Meter, *, speed: float, monotonic: Callable[[], float]) -> None:
        self._kept = KeptRegister(meter, home.register, speed=speed, write=home.write)
        self._speed = speed
        self._monotonic = monotonic
        self.register = Register(energy_j=0.0, power_w=0.0, method="estimated")
        self.stuck = ""

    def pace(self, speed: float) -> None:
        """The daemon's clock runs at ``speed`` from now on; what was drawn before is counted at the old one."""
        if speed != self._speed:
            self.reporter()
            self._speed = self._kept.speed = speed

    def reporter(self) -> Callable[[], MeterReport | None]:
        """Read now; the function given back makes the report, with the register's age at that moment in clock seconds."""
        read_s = self._monotonic()
        try:
            self.register = register = self._kept.read()
        except StorageFull as error:
            self.stuck = str(error)
            return lambda: None
        self.stuck = ""
        return lambda: MeterReport(
            register_j=register.energy_j,
            age_s=max(self._monotonic() - read_s, 0.0) * self._speed,
            power_w=register.power_w,
            method=register.method,
        )

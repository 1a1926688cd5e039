"""gridsched trains neural networks on consumers' computers when the power grid has energy to spare.

This module is the face for adapter authors: what a signal adapter in ``adapters/signals`` may import, and all it needs.
"""

from gridsched.adapter import Adapter, Fault, Http, Publication, Response, body_of, read_json, read_options, refuse_old, value_at
from gridsched.core.errors import AdapterError, ConfigError, InvalidInput
from gridsched.core.quantity import duration, factor
from gridsched.core.rows import Batch, Dropped, Layout, Row, Stamp, StampFormat, moment, named_zone, number, read_rows
from gridsched.core.signal import UNIT, Quality, Reading, SignalKind
from gridsched.providers.broker import Broker
from gridsched.providers.openadr import EventSpan, event_spans
from gridsched.providers.vtn import OpenAdrVersion, Vtn

__all__ = [
    "UNIT",
    "Adapter",
    "AdapterError",
    "Batch",
    "Broker",
    "ConfigError",
    "Dropped",
    "EventSpan",
    "Fault",
    "Http",
    "InvalidInput",
    "Layout",
    "OpenAdrVersion",
    "Publication",
    "Quality",
    "Reading",
    "Response",
    "Row",
    "SignalKind",
    "Stamp",
    "StampFormat",
    "Vtn",
    "body_of",
    "duration",
    "event_spans",
    "factor",
    "moment",
    "named_zone",
    "number",
    "read_json",
    "read_options",
    "read_rows",
    "refuse_old",
    "value_at",
]

__version__ = "0.1.0"

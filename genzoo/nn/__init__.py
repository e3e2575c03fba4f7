"""Networks: shapes only, no probability."""

from genzoo.core.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__, {})

"""Networks: shapes only, no probability."""

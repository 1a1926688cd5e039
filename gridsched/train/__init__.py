"""Everything about training; knows no network and no database."""

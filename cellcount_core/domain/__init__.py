"""The values the whole product speaks in: fields, shards, configuration, reasons, columns. No I/O, nothing heavy."""

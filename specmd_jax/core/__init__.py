"""What every floor speaks: the data types with their shapes, units, arrays, errors, files."""

"""The HTTP surface: routes by noun, one error shape, limits outermost. Parts come in through `Parts`."""

"""Shim of the redesign."""

# SHIM of the redesign: until this module holds them itself, names come from where they stand now.
_SHIM = [
    "avnb.data.transforms",
    "avnb.data.colours",
    "avnb.data.spectrograms",
    "avnb.data.mel_statistics",
    "avnb.data.batch_transform",
]


def __getattr__(name: str) -> object:
    import importlib

    for module in _SHIM:
        found = importlib.import_module(module)
        if hasattr(found, name):
            return getattr(found, name)
    raise AttributeError(name)

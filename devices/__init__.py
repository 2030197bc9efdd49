"""Parts: what one component does to a signal, how it errs, and what one use of it costs."""

if __name__ != "inmaterio.devices":
    raise ImportError(f"import 'inmaterio.devices', not {__name__!r}: a second copy of every class would be made")

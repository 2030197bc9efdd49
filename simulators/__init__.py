"""Substrates: parts wired into a system that computes, one file each."""

if __name__ != "inmaterio.simulators":
    raise ImportError(f"import 'inmaterio.simulators', not {__name__!r}: a second copy of every class would be made")

"""Questions: data sets, runs, comparisons, reports and the command line."""

if __name__ != "inmaterio.experiments":
    raise ImportError(f"import 'inmaterio.experiments', not {__name__!r}: a second copy of every class would be made")

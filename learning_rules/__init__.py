"""Rules: how a substrate is changed from what is measured on it, one file each."""

if __name__ != "inmaterio.learning_rules":
    raise ImportError(f"import 'inmaterio.learning_rules', not {__name__!r}: a second copy of every class would be made")

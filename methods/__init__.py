"""LampBench's built-in methods, installed as ``lampbench_methods`` and registered like anyone's."""

if __name__ != "lampbench_methods":
    # Imported under another name, every class here would exist twice and no registry would know the second.
    raise ImportError(f"import lampbench_methods, not {__name__!r}: install the project first (pip install .)")

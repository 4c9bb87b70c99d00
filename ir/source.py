"""Where in the user's code a node comes from."""

from torch import fx


def source_line(node: fx.Node) -> str:
    """The user's source line that a node comes from: the innermost frame outside torch, else the innermost, else ''."""
    trace = node.meta.get("stack_trace") or ""
    frames = [line.strip() for line in str(trace).splitlines() if line.strip().startswith("File ")]
    own = [f for f in frames if "/torch/" not in f] or frames
    if not own:
        return ""
    path, _, rest = own[-1].removeprefix('File "').partition('", line ')
    return f"{path.rsplit('/', 1)[-1]}:{rest.split(',')[0]}"

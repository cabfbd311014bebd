"""A reference of the package as pages of the book, from its source: signatures and docstrings.

Nothing is imported, so it takes no time, and values of a configuration keep their comments.
(Sphinx's autodoc imports the whole package, which takes longer than all pages, and loses both
these comments and the lines of formulae.)
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import avnb
from avnb.files import write_text

FOLDER = Path(avnb.__file__).parent
PACKAGES = ("foundations", "data", "models", "training", "evaluation", "bench", "report")
SECTION = re.compile(r"(Args|Raises|Returns):\n(.*)", re.DOTALL)
ENTRY = re.compile(r"^    (\*{0,2}\w[\w, ]*): ", re.MULTILINE)
SPECIAL = re.compile(r"([\\*_$<>|{}#~@])")
Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


def write_reference(folder: Path) -> None:
    """Write `index.md` and a page for each package into a folder of the book's source."""
    rows = re.findall(r"^(\w+)  +(.+(?:\n  +.+)*)", avnb.__doc__ or "", re.MULTILINE)
    lines = [f"[{name}]({name}.md)\n: {escaped(' '.join(text.split()))}\n" for name, text in rows]
    says = "Modules, classes and functions of `avnb`, with their docstrings, in the order in which "
    says += "they import each other. Names that begin with an underscore are left out."
    write_text(folder / "index.md", "\n".join(["# The package", "", says, "", *lines]))
    for name in PACKAGES:
        write_text(folder / f"{name}.md", "\n\n".join(package_page(name)) + "\n")


def package_page(name: str) -> Iterator[str]:
    """The blocks of a package's page: its docstring, then its modules from below upwards."""
    top = FOLDER if name == "foundations" else FOLDER / name
    doc = ast.get_docstring(ast.parse((top / "__init__.py").read_text())) or ""
    yield f"# {name.capitalize()}"
    if name == "foundations":
        doc = re.findall(r"^foundations +(.*(?:\n +.*)*)", doc, re.MULTILINE)[0]
        yield "What all packages stand on."
    else:
        yield from prose(doc)
    names = re.findall(r"\w+" if name == "foundations" else r"(?m)^(\w+)  ", doc)
    for path in (top / module for module in names):
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
            yield from module_section(file)


def module_section(file: Path) -> Iterator[str]:
    """The blocks of a module: its docstring, then its public classes and functions."""
    text = file.read_text()
    tree, path = ast.parse(text), file.relative_to(FOLDER.parent).with_suffix("")
    name = ".".join(path.parts).removesuffix(".__init__")
    yield f"({name})=\n## {name.removeprefix('avnb.')}"
    yield from prose(ast.get_docstring(tree) or "")
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield f"### {escaped(node.name)}"
            yield from definition(node, text.splitlines())


def definition(node: Definition, lines: list[str]) -> Iterator[str]:
    """Signature and docstring; of a class also its annotated values and documented methods."""
    parts, methods = [signature(node, lines)], list[Function]()
    for inner in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(inner, ast.AnnAssign):
            parts.append("\n".join(lines[inner.lineno - 1 : inner.end_lineno]))
        elif isinstance(inner, Function):
            if inner.name == "__init__":
                parts.append(signature(inner, lines))
            elif not inner.name.startswith("_") and ast.get_docstring(inner):
                methods.append(inner)
    yield fenced("\n".join(parts), "python")
    yield from prose(ast.get_docstring(node) or "")
    if methods:
        blocks = [block for method in methods for block in definition(method, lines)]
        yield "\n\n".join([":::{container} members", *blocks, ":::"])


def signature(node: Definition, lines: list[str]) -> str:
    """The lines from the first decorator to the colon, as they are written."""
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return "\n".join(lines[first - 1 : node.body[0].lineno - 1]).rstrip().removesuffix(":")


def fenced(text: str, language: str) -> str:
    """A block of code, moved to the left."""
    room = min(len(line) - len(line.lstrip()) for line in text.splitlines() if line.strip())
    body = "\n".join(line[room:] for line in text.splitlines())
    return f"```{language}\n{body}\n```"


def prose(doc: str) -> Iterator[str]:
    """A docstring in Markdown: arguments as a list, formulae and columns as they are."""
    for block in re.split(r"\n\n+", doc):
        if section := SECTION.fullmatch(block):
            title = {"Args": "Arguments"}.get(section[1], section[1])
            yield f"**{title}**\n\n{entries(section[2])}"
        elif block.startswith("    ") or re.search(r"\S {2,}\S", block):
            yield fenced(block, "text")
        elif block:
            yield escaped(block)


def entries(text: str) -> str:
    """The arguments or errors of a section as a list."""
    first, *rest = ENTRY.split(text)
    pairs = zip(rest[::2], rest[1::2], strict=True)
    items = [f"- `{name}`: {escaped(' '.join(says.split()))}" for name, says in pairs]
    return "\n".join(items) or escaped(" ".join(first.split()))


def escaped(text: str) -> str:
    """Text in which nothing but `code` means anything to Markdown."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(p if i % 2 else SPECIAL.sub(r"\\\1", p) for i, p in enumerate(parts))

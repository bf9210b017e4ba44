"""The walls of the house (docs/architecture.md): a room imports only rooms below it, a face no other face, no circles.

Imports inside functions count like those at the top of a file; imports for type checkers alone may close a circle.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = [
    {"errors"},
    {"utils"},
    {"modalities"},
    {"model"},
    {"auto"},
    {"hub"},
    {"chat"},
    {"serving"},
    {"cli", "web", "api"},
    {"serve"},
    {"__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def files_of(root: Path, *tops: str) -> dict[str, Path]:
    """Return dotted name -> file of all modules below folders of `root`."""
    found = {}
    for path in (path for top in tops for path in sorted((root / top).rglob("*.py"))):
        found[".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports_of(path: Path, modules: dict[str, Path]) -> Iterator[tuple[str, bool]]:
    """Yield each project module that a file imports, and whether it is for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typed = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import; write the whole name"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else node.module for name in whole]
        for name in names:
            if name in modules:
                yield name, id(node) in typed


def room_of(module: str) -> str:
    """Return the room of a module of onellm; "" for the package itself, whose names are imported when used."""
    return (module.split(".") + [""])[1]


def wrong_ways(modules: dict[str, Path]) -> list[str]:
    """List the imports that go up, or from one room to another one on its floor."""
    found = []
    for module, path in modules.items():
        for name, _ in imports_of(path, modules):
            here, there = room_of(module), room_of(name)
            if module.startswith("onellm") and name.startswith("train"):
                found.append(f"{module} imports {name}")
            if not (module.startswith("onellm.") and name.startswith("onellm.")) or here == there:
                continue
            if FLOOR[there] >= FLOOR[here]:
                found.append(f"{module} imports {name}")
    return found


def circles(modules: dict[str, Path]) -> list[str]:
    """List one circle of imports for each module that lies on one."""
    edges = {
        module: {name for name, typed in imports_of(path, modules) if not typed and name != module}
        for module, path in modules.items()
    }
    found = {}
    for start in edges:
        before, waiting = {start: None}, [start]
        while waiting:
            module = waiting.pop(0)
            for name in sorted(edges[module]):
                if name == start:
                    steps, step = [start], module
                    while step is not None:
                        steps.append(step)
                        step = before[step]
                    found.setdefault(frozenset(steps), " -> ".join(reversed(steps)))
                    waiting.clear()
                    break
                if name not in before:
                    before[name] = module
                    waiting.append(name)
    return sorted(found.values())


def test_every_room_has_a_floor():
    inside = (ROOT / "onellm").iterdir()
    rooms = {path.stem for path in inside if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__", "__pycache__"} == set(FLOOR)


def test_a_room_imports_only_rooms_below_it():
    assert wrong_ways(files_of(ROOT, "onellm", "train")) == []


@pytest.mark.parametrize("top", ["onellm", "train"])
def test_no_imports_in_a_circle(top):
    assert circles(files_of(ROOT, top)) == []


def test_the_checks_find_what_they_look_for(tmp_path):
    house = {
        "onellm/model/one.py": "def late():\n    from onellm.chat import two\n",
        "onellm/chat/two.py": "from onellm.chat import three\n",
        "onellm/chat/three.py": "from onellm.chat.two import name\n",
        "onellm/web/four.py": "import onellm.api.five\n",
        "onellm/api/five.py": "import train.six\n",
        "train/six.py": "import onellm.model.one\n",
    }
    for name, text in house.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    modules = files_of(tmp_path, "onellm", "train")
    assert sorted(wrong_ways(modules)) == [
        "onellm.api.five imports train.six",
        "onellm.model.one imports onellm.chat.two",
        "onellm.web.four imports onellm.api.five",
    ]
    assert circles(modules) == ["onellm.chat.three -> onellm.chat.two -> onellm.chat.three"]

"""Typed clients and OpenAPI documents, written from what services announce, ours and others'."""

from __future__ import annotations

import enum
import importlib.util
import json
import os
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import attrs
import pytest
from helpers.process import ROOT

import lightlink
from lightlink import describe
from lightlink.cli import main
from lightlink.cli.terminal.exits import Exit
from lightlink.describe import Description
from lightlink.errors import UnsupportedSchema
from lightlink.rpc.discovery import MethodInfo, RunningService, ServiceInstance
from lightlink.rpc.openapi import write_openapi
from lightlink.rpc.schema_types import literal
from lightlink.rpc.stub import write_stub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.define
class Point:
    x: float
    y: float = 0.0
    near: list[Point] = attrs.field(factory=list)


class Extra(TypedDict, total=False):
    note: str


Kebab = TypedDict("Kebab", {"a-b": int, "class": str})


def make(name: str, url: str | None = None) -> lightlink.Service:
    service = lightlink.Service(name, url, version="1.2.3", description='Sums \\ and "quotes"')

    @service.rpc(idempotent=True)
    def add(a: int, b: int = 2) -> int:
        """Add two numbers."""
        return a + b

    @service.rpc
    def place(
        name: str,
        at: Point,
        count: int = 1,
        colour: Colour = Colour.RED,
        mode: Literal["fast", "it's", 'say "x"'] | None = None,
        tags: dict[str, int] | None = None,
        extra: Extra | None = None,
        some: list[int] = [1, 2],  # noqa: B006
    ) -> dict[str, Any]:
        """Put something somewhere.

        Twice, if need be, with a very long line that goes on and on and on until it does not fit on one any more.
        And a \\ backslash, and \"\"\"quotes\"\"\"
        """
        return {"at": at, "count": count, "colour": colour, "some": some, "name": name, "extra": extra}

    @service.rpc
    def nearest(to: Point) -> list[Point]:
        return [to]

    @service.rpc("get-user")
    def get_user(result: Kebab, **more: int) -> Kebab | None:
        return Kebab({"a-b": sum(more.values()), "class": result["class"]})

    @service.rpc
    def noop() -> None: ...

    @service.rpc
    def untold(x, self=None):  # type: ignore[no-untyped-def]
        return [x, self]

    @service.rpc
    def pair(p: tuple[int, str], **rest: Any) -> tuple[int, str]:
        return p

    @service.rpc
    def a_rather_long_name_for_a_method(argument_one: int, argument_number_two: str = "x") -> dict[str, list[Point]]:
        return {}

    return service


def running(*methods: MethodInfo, name: str = "math", description: str = "") -> RunningService:
    instance = ServiceInstance(id="1", version="1.0.0")
    found = {method.name: method for method in methods}
    return RunningService(name=name, description=description, instances=(instance,), methods=found)


def announced(service: lightlink.Service) -> RunningService:
    """Return what a service would announce, without a server."""
    told = service.test_client().call(describe.DESCRIBE_METHOD)
    methods = [MethodInfo(name=name, description=describe.read(metadata)) for name, metadata in told.items()]
    return running(*methods, name=service.name, description='Sums \\ and "quotes"')


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stub") / "math_client.py"
    path.write_text(write_stub(announced(make("math"))))
    return path


def check(*command: str, folder: Path, **env: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# What is written ------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(180)
def test_a_stub_passes_mypy_strict(stub: Path) -> None:
    use = stub.parent / "use.py"
    use.write_text(USE)
    hiding = stub.parent / "hiding_client.py"
    hiding.write_text(write_stub(announced(hiding_names())))
    cache, names = f"--cache-dir={stub.parent / 'cache'}", (stub.name, use.name, hiding.name)
    check("mypy", "--strict", "--config-file=", cache, *names, folder=stub.parent, MYPYPATH=str(ROOT))


USE = """
from typing import Any

import lightlink
from math_client import Kebab, MathClient, Point
from typing_extensions import assert_type


def use(client: lightlink.Client) -> None:
    math = MathClient(client, timeout=1.0, retry=lightlink.Retry(), headers={"Tenant": "acme"})
    assert_type(math.add(a=1), int)
    assert_type(math.nearest(to={"x": 1.0}), list[Point])
    assert_type(math.get_user(result={"a-b": 1, "class": "x"}, more=5), Kebab | None)
    assert_type(math.untold(x=object()), Any)
    math.place(name="x", at={"x": 1.0, "near": [{"x": 2.0}]}, colour="blue", mode="it's", some=[3])
    math.add(a="1")  # type: ignore[arg-type]
    math.place(name="x", at={"y": 1.0}, colour="green")  # type: ignore[typeddict-item, arg-type]
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_stub_passes_pyright(stub: Path) -> None:
    pytest.importorskip("pyright")
    config = stub.parent / "pyrightconfig.json"
    config.write_text(json.dumps({"extraPaths": [str(ROOT)], "include": [stub.name], "strict": [stub.name]}))
    check("pyright", "--pythonpath", sys.executable, folder=stub.parent)


def test_a_stub_is_formatted_and_clean(stub: Path) -> None:
    check("ruff", "format", "--isolated", "--check", "--target-version=py310", stub.name, folder=stub.parent)
    check("ruff", "check", "--isolated", "--select=E,F,I,UP", "--target-version=py310", stub.name, folder=stub.parent)


def test_a_stub_is_the_same_byte_for_byte(stub: Path) -> None:
    again = write_stub(announced(make("math")))
    assert again == stub.read_text()
    found = announced(make("math"))
    backwards = attrs.evolve(found, methods=dict(reversed(found.methods.items())))
    assert write_stub(backwards) == again


def test_a_stub_imports_lightlink_and_the_standard_library_alone(stub: Path) -> None:
    lines = [line for line in stub.read_text().splitlines() if line.startswith(("import ", "from "))]
    assert lines == [
        "from __future__ import annotations",
        "from typing import Any, Literal, TypedDict",
        "import lightlink",
    ]


def test_docstrings_signatures_and_the_digest_are_in_it(stub: Path) -> None:
    text = stub.read_text()
    assert '    def add(self, *, a: int, b: int = 2) -> int:\n        """Add two numbers."""\n' in text
    assert f"\nDigest: {announced(make('math')).digest}\n" in text
    module = load(stub)
    assert module.MathClient.place.__doc__.splitlines()[0] == "Put something somewhere."
    assert '"""quotes"""' in module.MathClient.place.__doc__
    assert module.MathClient.__doc__ == 'Sums \\ and "quotes"'


def test_one_object_has_one_name_in_all_methods(stub: Path) -> None:
    text = stub.read_text()
    assert text.count("class Point(") == 1
    assert "near: list[Point]" in text


@attrs.define
class HidingClient:
    id: int


def hiding_names() -> lightlink.Service:
    """Return a service whose names are those of types, and of the client itself."""
    service = lightlink.Service("hiding")

    @service.rpc("list")
    def names(of: list[Literal["a list", "list"]] | None = None) -> list[str]:
        return []

    @service.rpc
    def owners(**more: list[int]) -> list[HidingClient]:
        return []

    return service


def test_names_of_methods_and_of_the_client_hide_no_type(tmp_path: Path) -> None:
    path = tmp_path / "hiding_client.py"
    path.write_text(write_stub(announced(hiding_names())))
    text = path.read_text()
    assert text.count("class HidingClient") == 1
    assert 'of: builtins.list[Literal["a list", "list"]] | None = None' in text
    assert "def list(" in text
    assert "-> builtins.list[OwnersResultHidingClient]:" in text
    assert "**arguments: builtins.list[int]" in text
    check("ruff", "format", "--isolated", "--check", "--target-version=py310", path.name, folder=tmp_path)
    check("ruff", "check", "--isolated", "--select=E,F,I,UP", path.name, folder=tmp_path)


# How it works ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def service(url: str, prefix: str) -> Iterator[lightlink.Service]:
    with make(prefix, url) as service:
        yield service


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


def test_a_typed_client_calls_the_service(
    client: lightlink.Client, service: lightlink.Service, prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{prefix}.py"
    path.write_text(write_stub(client.service(prefix).info()))
    module = load(path)
    [made] = [value for name, value in vars(module).items() if name.endswith("Client")]
    math = made(client)
    assert math.add(a=1) == 3
    assert math.get_user(result={"a-b": 1, "class": "x"}, one=1, two=2) == {"a-b": 3, "class": "x"}
    assert math.nearest(to={"x": 1}) == [{"x": 1.0, "y": 0.0, "near": []}]
    assert math.untold(x=1, self_=2) == [1, 2]
    assert math.noop() is None
    placed = math.place(name="n", at={"x": 1})
    assert (placed["some"], placed["colour"], placed["count"]) == ([1, 2], "red", 1)
    with pytest.raises(lightlink.InvalidArguments):
        math.add(a="one")


def test_a_service_with_another_digest_is_warned_of_once(
    client: lightlink.Client, service: lightlink.Service, prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{prefix}.py"
    digest = client.services(prefix)[0].digest
    path.write_text(write_stub(client.service(prefix).info()).replace(digest, "0" * 16))
    module = load(path)
    [made] = [value for name, value in vars(module).items() if name.endswith("Client")]
    math = made(client)
    with pytest.warns(lightlink.StubWarning, match=f"run `lightlink stub {prefix}` again") as caught:
        assert math.add(a=1) == 3
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.add(a=1) == 3


def test_a_typed_client_of_a_service_that_is_not_there_says_so(client: lightlink.Client, prefix: str) -> None:
    typed = lightlink.TypedService(client, prefix, "0" * 16)
    with pytest.raises(lightlink.ServiceUnavailable):
        typed.call("add", {"a": lightlink.UNSET})


# Services of others ---------------------------------------------------------------------------------------------------


def method(name: str = "go", **schemas: Any) -> MethodInfo:
    told = {"arguments": {"type": "object"}, **schemas}
    return MethodInfo(name=name, description=Description(**told))


def argument(schema: Any) -> MethodInfo:
    return method(arguments={"type": "object", "properties": {"a": schema}, "additionalProperties": False})


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": ["integer", "null"]}, "int | None"),
        ({"type": ["null", "string"]}, "str | None"),
        ({"oneOf": [{"type": "string"}, {"type": "number"}]}, "str | float"),
        ({"allOf": [{"type": "string"}]}, "str"),
        ({"const": 5}, "Literal[5]"),
        ({"enum": [True, None, "x"]}, 'Literal[True, None, "x"]'),
        ({"enum": [1.5]}, "float"),
        ({"type": "array"}, "list[Any]"),
        ({"type": "array", "items": {"type": "integer", "minimum": 3}}, "list[int]"),
        ({"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}}, "list[int | str]"),
        ({"type": "object"}, "dict[str, Any]"),
        ({"type": "object", "additionalProperties": {"type": "boolean"}}, "dict[str, bool]"),
        ({"type": "object", "properties": {"x": {"type": "integer"}}}, "GoA"),
        ({"type": "object", "title": "a point", "properties": {"x": {"type": "integer"}}}, "APoint"),
        ({"properties": {"x": {"properties": {"y": {}}}}}, "GoA"),
        ({"description": "anything"}, "Any"),
        (True, "Any"),
        ({"$ref": "#/$defs/Whole", "$defs": {}}, None),
        (False, None),
        ({"not": {"type": "string"}}, None),
        ({"type": "object", "patternProperties": {"^a": {}}}, None),
        ({"allOf": [{"type": "string"}, {"minLength": 1}]}, None),
        ({"type": "object", "properties": {"x": {}}, "additionalProperties": {"type": "string"}}, None),
        ({"type": "decimal"}, None),
        ({"enum": []}, None),
        ({"$ref": "https://example.com/point.json"}, None),
    ],
)
def test_schemas_of_others_are_written_or_refused_by_name(schema: Any, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(UnsupportedSchema, match=r"math\.go: argument 'a': .* cannot be written as a Python type"):
            write_stub(running(argument(schema)))
        return
    text = write_stub(running(argument({**schema, "default": {}} if schema and schema is not True else schema)))
    compile(text, "stub.py", "exec")
    assert f"a: {expected}" in text


def test_two_meanings_of_one_name_are_told_apart() -> None:
    def point(kind: str) -> dict[str, Any]:
        defs = {"Point": {"type": "object", "properties": {"x": {"type": kind}}, "required": ["x"]}}
        properties = {"to": {"$ref": "#/$defs/Point"}}
        return {"type": "object", "properties": properties, "required": ["to"], "$defs": defs}

    text = write_stub(running(method("one", arguments=point("integer")), method("two", arguments=point("string"))))
    assert "class Point(TypedDict):\n    x: int" in text
    assert "class TwoToPoint(TypedDict):\n    x: str" in text


def test_names_that_come_to_the_same_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedSchema, match="a-b and a_b: both would be called 'a_b'"):
        write_stub(running(method("a_b"), method("a-b")))
    arguments = {"type": "object", "properties": {"x y": {}, "x-y": {}}}
    with pytest.raises(UnsupportedSchema, match="x y and x-y: both would be called 'x_y'"):
        write_stub(running(method(arguments=arguments)))


@pytest.mark.parametrize(
    "name", ["import os; os.system('x')", "class", "__init__", "1st", "ü²", "", "a\nb", '"', "self"]
)
def test_hostile_names_stay_text(name: str, tmp_path: Path) -> None:
    arguments = {"type": "object", "properties": {name: {"type": "object", "title": name, "properties": {name: {}}}}}
    text = '"""\n\\" \x00 \x1b[31m """ ' + name + '\\"'
    told = Description(text=text, arguments=arguments, result={"enum": [name, "\\", "'\""]})
    written = write_stub(running(MethodInfo(name=name, description=told), description=text))
    compiled = compile(written, "stub.py", "exec")
    names = {"system", "os"} & {*compiled.co_names}
    assert names == set()
    assert "\x1b" not in written


@pytest.mark.parametrize("value", ["a", 'a"b', "a'b", "a\\b", "\n", "ü", "'\"", "\\'", "\\", '"', 5, None, True, 1.5])
def test_a_literal_is_the_value(value: Any) -> None:
    assert eval(literal(value)) == value


# On the command line --------------------------------------------------------------------------------------------------


def test_the_command_writes_and_checks(
    service: lightlink.Service, url: str, prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "client.py"
    command = ["stub", prefix, f"--url={url}"]
    assert main([*command, "-o", str(path), "--check"]) == Exit.FAILED
    assert main([*command, "-o", str(path)]) == Exit.DONE
    assert main([*command, "-o", str(path), "--check"]) == Exit.DONE
    capsys.readouterr()
    assert main(command) == Exit.DONE
    assert capsys.readouterr().out == path.read_text()
    path.write_text(path.read_text() + "\n")
    assert main([*command, "-o", str(path), "--check"]) == Exit.FAILED
    assert "is not what `lightlink stub" in capsys.readouterr().err
    assert main([*command, "--check"]) == Exit.USAGE
    path.write_bytes(b"\xff")
    assert main([*command, "-o", str(path), "--check"]) == Exit.FAILED
    capsys.readouterr()
    for name in ("stub", "openapi"):
        assert main([name, prefix, f"--url={url}", "-o", str(tmp_path / "no" / "folder")]) == Exit.FAILED
        assert capsys.readouterr().err == f"error: {tmp_path / 'no' / 'folder'}: No such file or directory\n"


def test_a_service_is_printed_as_openapi(
    service: lightlink.Service, url: str, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["openapi", prefix, f"--url={url}"]) == Exit.DONE
    document = json.loads(capsys.readouterr().out)
    assert (document["openapi"], document["info"]["version"]) == ("3.1.0", "1.2.3")
    add = document["paths"][f"/{prefix}/add"]["post"]
    assert (add["operationId"], add["summary"], add["x-idempotent"]) == ("add", "Add two numbers.", True)
    assert add["requestBody"]["content"]["application/json"]["schema"]["required"] == ["a"]
    assert add["responses"]["200"]["content"]["application/json"]["schema"] == {"type": "integer"}
    assert {*document["components"]["schemas"]} >= {"Error", "Point", "Kebab"}


def test_every_reference_of_a_document_leads_somewhere() -> None:
    document = write_openapi(announced(make("math")))
    references: list[str] = []

    def gather(value: Any) -> None:
        if isinstance(value, dict):
            references.extend([value["$ref"]] if "$ref" in value else [])
            for each in value.values():
                gather(each)
        elif isinstance(value, list):
            for each in value:
                gather(each)

    gather(document)
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert "#/components/schemas/Point" in references
    assert {*references} <= known
    assert "$defs" not in json.dumps(document)

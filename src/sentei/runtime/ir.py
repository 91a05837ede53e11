"""LLVM IR as text, by builders that read like the arithmetic they stand for.

A :class:`Function` collects the lines of one function. A :class:`Value` is a register of it with
Python's operators; a number beside it becomes a constant of its type, in every lane. Lanes are
counted, not widths of a machine: LLVM splits a vector that the CPU's registers are too short for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

POINTER, INDEX = "ptr", "i64"


def lanes(count: int, scalar: str) -> str:
    """The type of a vector."""
    return f"<{count} x {scalar}>"


def scalar_of(type_: str) -> str:
    """``float`` of ``<16 x float>``; a scalar's type is itself."""
    return type_.split(" x ")[1].rstrip(">") if type_.startswith("<") else type_


def count_of(type_: str) -> int:
    """Lanes of a type."""
    return int(type_[1:].split(" x ")[0]) if type_.startswith("<") else 1


def constant(type_: str, number: float) -> str:
    """A number of a type, in every lane."""
    scalar = scalar_of(type_)
    if scalar == "float":  # written as the double of the same value
        single = struct.unpack("f", struct.pack("f", number))[0]
        text = f"0x{struct.unpack('<Q', struct.pack('<d', single))[0]:016X}"
    else:
        text = str(int(number))
    return f"splat ({scalar} {text})" if type_.startswith("<") else text


@dataclass(frozen=True)
class Value:
    """A register of a function."""

    function: Function
    type: str
    name: str

    def _with(self, other: Value | float, integer: str, floating: str) -> Value:
        operation = floating if scalar_of(self.type) == "float" else integer
        operand = self.function.operand(self.type, other)
        return self.function.assign(self.type, f"{operation} {self.type} {self.name}, {operand}")

    def __add__(self, other: Value | float) -> Value:
        return self._with(other, "add", "fadd")

    def __sub__(self, other: Value | float) -> Value:
        return self._with(other, "sub", "fsub")

    def __mul__(self, other: Value | float) -> Value:
        return self._with(other, "mul", "fmul")

    def __truediv__(self, other: Value | float) -> Value:
        return self._with(other, "sdiv", "fdiv")

    def __mod__(self, other: Value | float) -> Value:
        return self._with(other, "srem", "frem")

    def __lshift__(self, other: Value | float) -> Value:
        return self._with(other, "shl", "shl")

    def __rshift__(self, other: Value | float) -> Value:
        return self._with(other, "lshr", "lshr")

    def __and__(self, other: Value | float) -> Value:
        return self._with(other, "and", "and")

    def __or__(self, other: Value | float) -> Value:
        return self._with(other, "or", "or")

    def less(self, other: Value | float) -> Value:
        """Whether it is smaller, signed, lane by lane."""
        operand = self.function.operand(self.type, other)
        flag = lanes(count_of(self.type), "i1") if self.type.startswith("<") else "i1"
        return self.function.assign(flag, f"icmp slt {self.type} {self.name}, {operand}")

    def as_bits(self, type_: str) -> Value:
        """The same bits as another type."""
        return self.function.assign(type_, f"bitcast {self.type} {self.name} to {type_}")

    def convert(self, operation: str, type_: str) -> Value:
        """``zext``, ``trunc``, ``sitofp``, ... to a type."""
        return self.function.assign(type_, f"{operation} {self.type} {self.name} to {type_}")

    def spread(self, count: int) -> Value:
        """A scalar in every lane of a vector."""
        type_ = lanes(count, self.type)
        one = self.function.assign(
            type_, f"insertelement {type_} poison, {self.type} {self.name}, i64 0"
        )
        zeros = f"<{count} x i32> zeroinitializer"
        return self.function.assign(
            type_, f"shufflevector {type_} {one.name}, {type_} poison, {zeros}"
        )

    def at(self, offset: Value | int) -> Value:
        """A pointer some bytes further."""
        where = self.function.operand(INDEX, offset)
        return self.function.assign(POINTER, f"getelementptr i8, ptr {self.name}, i64 {where}")

    def load(self, type_: str, offset: Value | int = 0, align: int = 1) -> Value:
        """What lies some bytes behind a pointer."""
        place = self if isinstance(offset, int) and offset == 0 else self.at(offset)
        return self.function.assign(type_, f"load {type_}, ptr {place.name}, align {align}")

    def store(self, value: Value, offset: Value | int = 0, align: int = 1) -> None:
        """Write some bytes behind a pointer."""
        place = self if isinstance(offset, int) and offset == 0 else self.at(offset)
        self.function.emit(f"store {value.type} {value.name}, ptr {place.name}, align {align}")


@dataclass
class Loop:
    """A loop while it is written: ``next`` must be set to what ``values`` are in the next turn."""

    index: Value
    values: list[Value]
    next: list[Value] = field(default_factory=list)


class Function:
    """One function of a module, line by line.

    Args:
        name: Its symbol.
        parameters: Name and type of each.
        result: Type of what it returns.
    """

    def __init__(self, name: str, parameters: Sequence[tuple[str, str]], result: str = "void"):
        self.name, self.result = name, result
        self.declarations: set[str] = set()
        self._parameters = parameters
        self._locals: list[str] = ["entry:"]
        self._lines: list[str] = []
        self._block = "entry"
        self._count = 0
        self.parameters = [Value(self, type_, f"%{label}") for label, type_ in parameters]

    def emit(self, line: str) -> None:
        """Add one instruction."""
        self._lines.append(f"  {line}")

    def assign(self, type_: str, expression: str) -> Value:
        """Add an instruction that gives a value."""
        self._count += 1
        value = Value(self, type_, f"%v{self._count}")
        self.emit(f"{value.name} = {expression}")
        return value

    def operand(self, type_: str, value: Value | float) -> str:
        """The name of a value, or a number as a constant of the type."""
        if not isinstance(value, Value):
            return constant(type_, value)
        assert value.type == type_, f"{value.type} where {type_} belongs"
        return value.name

    def number(self, type_: str, number: float) -> Value:
        """A constant as a value."""
        return Value(self, type_, constant(type_, number))

    def call(self, name: str, type_: str, *arguments: Value) -> Value:
        """Call an intrinsic that gives a value."""
        types = ", ".join(one.type for one in arguments)
        self.declarations.add(f"declare {type_} @{name}({types})")
        given = ", ".join(f"{one.type} {one.name}" for one in arguments)
        return self.assign(type_, f"call {type_} @{name}({given})")

    def call_address(self, address: Value, *arguments: Value) -> None:
        """Call a function by its address."""
        given = ", ".join(f"{one.type} {one.name}" for one in arguments)
        self.emit(f"call void {address.name}({given})")

    def shuffle(self, first: Value, second: Value, order: Sequence[int]) -> Value:
        """Lanes of two vectors in a new order; those of the second count on from the first's."""
        mask = ", ".join(f"i32 {lane}" for lane in order)
        return self.assign(
            lanes(len(order), scalar_of(first.type)),
            f"shufflevector {first.type} {first.name}, {second.type} {second.name}, "
            f"<{len(order)} x i32> <{mask}>",
        )

    def select(self, condition: Value, first: Value, second: Value) -> Value:
        """The first where the condition holds, else the second."""
        return self.assign(
            first.type,
            f"select {condition.type} {condition.name}, {first.type} {first.name}, "
            f"{second.type} {second.name}",
        )

    def fma(self, first: Value, second: Value, third: Value) -> Value:
        """``first * second + third``, in one instruction where the CPU has one."""
        return self.call(f"llvm.fmuladd.{suffix(first.type)}", first.type, first, second, third)

    def maximum(self, first: Value, second: Value) -> Value:
        """The larger; of a NaN and a number the second."""
        flag = lanes(count_of(first.type), "i1")
        larger = self.assign(flag, f"fcmp ogt {first.type} {first.name}, {second.name}")
        return self.select(larger, first, second)

    def minimum(self, first: Value, second: Value) -> Value:
        """The smaller; of a NaN and a number the second."""
        flag = lanes(count_of(first.type), "i1")
        smaller = self.assign(flag, f"fcmp olt {first.type} {first.name}, {second.name}")
        return self.select(smaller, first, second)

    def absolute(self, value: Value) -> Value:
        """Without its sign."""
        return self.call(f"llvm.fabs.{suffix(value.type)}", value.type, value)

    @contextmanager
    def loop(
        self,
        begin: Value | int,
        end: Value | int,
        step: int = 1,
        values: Sequence[Value] = (),
    ) -> Iterator[Loop]:
        """A loop over an index, with values that each turn hands to the next.

        After it, ``values`` of the :class:`Loop` are those that the last turn left.
        """
        label = self._label()
        before, head, body, done = self._block, f"{label}.head", f"{label}.body", f"{label}.done"
        first, last = self.operand(INDEX, begin), self.operand(INDEX, end)
        self.emit(f"br label %{head}")
        self._open(head)
        places = []
        registers = []
        for type_ in (INDEX, *(value.type for value in values)):
            self._count += 1
            registers.append(Value(self, type_, f"%v{self._count}"))
            places.append(len(self._lines))
            self._lines.append("")
        index = registers[0]
        more = self.assign("i1", f"icmp slt i64 {index.name}, {last}")
        self.emit(f"br i1 {more.name}, label %{body}, label %{done}")
        self._open(body)
        loop = Loop(index, registers[1:])
        yield loop
        assert len(loop.next) == len(values), "a loop must say what its values are next"
        following = index + step
        latch = self._block
        self.emit(f"br label %{head}")
        starts = (first, *(value.name for value in values))
        nexts = (following.name, *(value.name for value in loop.next))
        for place, register, start, next_ in zip(places, registers, starts, nexts, strict=True):
            self._lines[place] = (
                f"  {register.name} = phi {register.type} [ {start}, %{before} ], "
                f"[ {next_}, %{latch} ]"
            )
        self._open(done)

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """Instructions for one case."""
        label = self._label()
        self.emit(f"br i1 {condition.name}, label %{label}.then, label %{label}.end")
        self._open(f"{label}.then")
        yield
        self.emit(f"br label %{label}.end")
        self._open(f"{label}.end")

    @contextmanager
    def spin(self) -> Iterator[list[Value]]:
        """Repeat until the condition that is put into the list holds."""
        label = self._label()
        self.emit(f"br label %{label}.again")
        self._open(f"{label}.again")
        done: list[Value] = []
        yield done
        self.emit(f"br i1 {done[0].name}, label %{label}.end, label %{label}.again")
        self._open(f"{label}.end")

    def text(self) -> str:
        """The whole function."""
        head = ", ".join(f"{type_} %{label}" for label, type_ in self._parameters)
        lines = "\n".join(
            [*self._locals, *self._lines, "  ret void" if self.result == "void" else ""]
        )
        return f"define {self.result} @{self.name}({head}) #0 {{\n{lines}\n}}\n"

    def local(self, type_: str) -> Value:
        """The address of a variable of the function's own."""
        self._count += 1
        self._locals.append(f"  %v{self._count} = alloca {type_}")
        return Value(self, POINTER, f"%v{self._count}")

    def _label(self) -> str:
        self._count += 1
        return f"b{self._count}"

    def _open(self, block: str) -> None:
        self._lines.append(f"{block}:")
        self._block = block


def suffix(type_: str) -> str:
    """What LLVM's overloaded intrinsics have at the end of their names."""
    scalar = {"float": "f32", "bfloat": "bf16"}.get(scalar_of(type_), scalar_of(type_))
    return f"v{count_of(type_)}{scalar}" if type_.startswith("<") else scalar


def module(functions: Sequence[Function], triple: str, attributes: dict[str, str]) -> str:
    """The text of a module, with the target that its functions are compiled for."""
    declarations = sorted(set().union(*(function.declarations for function in functions)))
    target = " ".join(f'"{key}"="{value}"' for key, value in attributes.items())
    return "\n".join(
        [
            f'target triple = "{triple}"',
            *declarations,
            *(function.text() for function in functions),
            f"attributes #0 = {{ nounwind {target} }}",
        ]
    )

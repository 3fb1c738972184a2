"""A compiled CPU program, written down without the text of what it has machine code for.

XLA writes down an executable as its whole program and the machine code of its kernels. Reading that
back, it looks for the instruction of each operation of its library among all instructions, one
after the other: over a thousand times fifty thousand for the training step of RCMNet, half of what
a second start waits for. Most of those instructions are the bodies of fusions, which nobody needs
once they are machine code. Here each such fusion becomes a call without a body.

The messages are XLA's (xla/service/hlo.proto, xla/service/cpu/executable.proto); only the fields
that are read or changed are named here, and protobuf carries all others along.
"""

import io
from functools import lru_cache

import jaxlib
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, proto
from google.protobuf.message import DecodeError

# Whose files are known to be written so: another one's are left as they are.
KNOWN_JAXLIB = ("0.10.", "0.11.")
# What computes into the memory of an operand; the places of its results are told by its body.
IN_PLACE = {b"dynamic-update-slice", b"scatter", b"fusion"}
# XLA's library reads the body of its own fusions, which are of this kind.
LIBRARY = b"kCustom"

_MESSAGES = {
    "Header": {},
    "Written": {"executable": (1, "Executable")},
    "Executable": {"program": (1, "Program")},
    "Program": {"module": (1, "Module")},
    "Module": {"computations": (3, "[Computation]")},
    "Computation": {"instructions": (2, "[Instruction]"), "id": (5, "int64")},
    "Instruction": {
        "opcode": (2, "bytes"),
        "fusion_kind": (11, "bytes"),
        "custom_call_target": (28, "bytes"),
        "called": (38, "[int64]"),
        "backend_config": (43, "bytes"),
    },
}


def slim(written: bytes) -> bytes:
    """An executable without the bodies of its compiled fusions; computes the same.

    Args:
      written: as XLA's CPU client serialises an executable.

    Raises:
      ValueError: it is not written as this jaxlib's should be.
    """
    if not jaxlib.__version__.startswith(KNOWN_JAXLIB):
        raise ValueError(f"files of jaxlib {jaxlib.__version__} are not known")
    stream = io.BytesIO(written)
    try:
        header = proto.parse_length_prefixed(_message("Header"), stream)
        whole = _message("Written").FromString(stream.read())
    except DecodeError as error:
        raise ValueError(f"not a compiled program: {error}") from error
    module = whole.executable.program.module
    if not module.computations:
        raise ValueError("no program in what XLA has written")
    _drop_compiled_bodies(module)
    slimmed = io.BytesIO()
    proto.serialize_length_prefixed(header, slimmed)
    return slimmed.getvalue() + whole.SerializeToString()


def _drop_compiled_bodies(module) -> None:
    bodies = {body.id: body for body in module.computations}
    dropped: set[int] = set()
    for computation in module.computations:
        for instruction in computation.instructions:
            if instruction.opcode != b"fusion" or instruction.fusion_kind == LIBRARY:
                continue
            (called,) = instruction.called
            if called not in bodies:
                raise ValueError("a fusion without a body in what XLA has written")
            if not IN_PLACE & {inner.opcode for inner in bodies[called].instructions}:
                dropped.add(called)
                _call_without_body(instruction)
    kept = [body for body in module.computations if body.id not in dropped]
    del module.computations[:]
    module.computations.extend(kept)


def _call_without_body(fusion) -> None:
    fusion.opcode = b"custom-call"
    fusion.custom_call_target = b"compiled"
    for field in ("fusion_kind", "called", "backend_config"):
        fusion.ClearField(field)


@lru_cache
def _message(name: str):
    """The class of one of `_MESSAGES`."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_description())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"rcmnet_jax.{name}"))


def _description() -> descriptor_pb2.FileDescriptorProto:
    field_type = descriptor_pb2.FieldDescriptorProto
    plain = {"int64": field_type.TYPE_INT64, "bytes": field_type.TYPE_BYTES}
    file = descriptor_pb2.FileDescriptorProto(name="executable.proto", package="rcmnet_jax")
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, (number, kind) in fields.items():
            repeated, kind = kind.startswith("["), kind.strip("[]")
            field = message.field.add(
                name=name,
                number=number,
                label=field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL,
                type=plain.get(kind, field_type.TYPE_MESSAGE),
            )
            if kind not in plain:
                field.type_name = f".rcmnet_jax.{kind}"
    return file

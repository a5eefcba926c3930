"""The images of a set as columns: a hundred bytes an image instead of seven hundred."""

from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, overload

from san_core.checked_json import read_json
from san_core.images.shard import Record, canonical_json

_UNKNOWN = -(2**63)  # a pid or camid that is None
_DIGEST_BYTES = 32


class Records(Sequence[Record]):
    """Images of a set, in order; a `Record` is made when one is asked for.

    A slice shares their columns.
    """

    def __init__(self, columns: "_Columns", rows: Sequence[int]) -> None:
        self._columns = columns
        self._rows = rows

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> "Records": ...

    def __getitem__(self, index: int | slice) -> "Record | Records":
        if isinstance(index, slice):
            return Records(self._columns, self._rows[index])
        return self._columns.record(self._rows[index])

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Record]:
        return map(self._columns.record, self._rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def in_splits(self, splits: Collection[str]) -> "Records":
        """Those of some splits."""
        splits_of_rows, names = self._columns.split, self._columns.split_names
        rows = (row for row in self._rows if names[splits_of_rows[row]] in splits)
        return Records(self._columns, array("q", rows))

    def picked(self, numbers: Iterable[int]) -> "Records":
        """Those of these numbers, in their order."""
        return Records(self._columns, array("q", [self._rows[number] for number in numbers]))

    def shards(self) -> set[int]:
        """The numbers of the shards that hold them."""
        return {self._columns.shard[row] for row in self._rows}


def pack_records(records: Iterable[Record]) -> Records:
    """Records as columns; they are taken one by one."""
    columns = _Columns()
    count = 0
    for record in records:
        columns.append(record)
        count += 1
    return Records(columns, range(count))


class _Columns:
    """The data of images, a row each; texts are concatenated and end at `name_end[row]`."""

    def __init__(self) -> None:
        self._names, self._fields, self._digests = bytearray(), bytearray(), bytearray()
        self._name_end, self._field_end = array("q"), array("q")
        self._pid, self._camid = array("q"), array("q")
        self._offset, self._size = array("q"), array("q")
        self.shard, self.split = array("i"), array("B")
        self.split_names: list[str] = []

    def append(self, record: Record) -> None:
        if record.split not in self.split_names:
            self.split_names.append(record.split)
        self.split.append(self.split_names.index(record.split))
        self.shard.append(record.shard)
        self._names += record.name.encode()
        self._name_end.append(len(self._names))
        self._fields += canonical_json(record.fields) if record.fields else b""
        self._field_end.append(len(self._fields))
        self._digests += bytes.fromhex(record.sha256)
        self._pid.append(_UNKNOWN if record.pid is None else record.pid)
        self._camid.append(_UNKNOWN if record.camid is None else record.camid)
        self._offset.append(record.offset)
        self._size.append(record.size)

    def record(self, row: int) -> Record:
        pid, camid = self._pid[row], self._camid[row]
        digest = self._digests[row * _DIGEST_BYTES : (row + 1) * _DIGEST_BYTES]
        return Record(
            name=_text(self._names, self._name_end, row).decode(),
            pid=None if pid == _UNKNOWN else pid,
            camid=None if camid == _UNKNOWN else camid,
            split=self.split_names[self.split[row]],
            shard=self.shard[row],
            offset=self._offset[row],
            size=self._size[row],
            sha256=digest.hex(),
            fields=self._record_fields(row),
        )

    def _record_fields(self, row: int) -> dict[str, Any]:
        text = _text(self._fields, self._field_end, row)
        return read_json(bytes(text), dict[str, Any], where="a record") if text else {}


def _text(texts: bytearray, ends: "array[int]", row: int) -> bytearray:
    return texts[ends[row - 1] if row else 0 : ends[row]]
